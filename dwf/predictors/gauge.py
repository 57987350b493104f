"""One representative of all networks that differ in scales and signs of their units alone.

A unit of ReLU may have what makes it multiplied by s > 0 and what takes it in by 1 / s: all units
are balanced (`align.canonical`), which fixes s. A unit of an odd activation may change its sign:
each is turned so that what makes it, its incoming weights and bias, sums to no less than 0, layer
after layer. What units are multiplied by is found once for a network and remembered: as many
numbers as it has units.

Shape suffixes: N networks, R rows asked for, D numbers of a network, U units of all groups.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dwf.align.canonical import balance_with_scales
from dwf.align.groups import Group, scale_units, units
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo


class Gauge:
    """Factors that bring the units of a zoo's networks to one scale and sign.

    Args:
        zoo: the networks.
        groups: those of their architecture.
    """

    def __init__(self, zoo: Zoo, groups: Sequence[Group]):
        self.zoo, self.groups = zoo, [group for group in groups if group.scales or group.signs]
        size = sum(group.size for group in self.groups)
        self._factor_NU = np.full((len(zoo), size), np.nan)

    def fixed(self, rows: np.ndarray) -> torch.Tensor:
        """Return weights_RD of some networks, float32, in their one scale and sign."""
        weights_RD = torch.from_numpy(self.zoo.read(rows))
        if not self.groups:
            return weights_RD
        factor_RU = self._factor_NU[rows]
        if len(fresh := np.flatnonzero(np.isnan(factor_RU[:, 0]))):
            factor_RU[fresh] = factors(
                weights_RD[fresh], self.zoo.layout, groups=self.groups
            ).numpy()
            self._factor_NU[rows] = factor_RU
        scaled_RD = weights_RD.double()
        _scale(scaled_RD, self.zoo.layout, self.groups, torch.from_numpy(factor_RU))
        return scaled_RD.float()


def factors(weights_ND: torch.Tensor, layout: Layout, *, groups: Sequence[Group]) -> torch.Tensor:
    """Return what each unit is to be multiplied by, float64_NU, group after group.

    Args:
        weights_ND: networks of this layout.
        layout: their layout.
        groups: those that scale or change sign, in the order of layers.
    """
    num = len(weights_ND)
    found = [torch.ones(num, group.size, dtype=torch.float64) for group in groups]
    scaling = [g for g, group in enumerate(groups) if group.scales]
    _, logs = balance_with_scales(weights_ND, layout, groups=groups)
    for g, log_NU in zip(scaling, logs, strict=True):
        found[g] = log_NU.exp()
    turned_ND = weights_ND.double()
    tensors = layout.unflatten(turned_ND)
    for g, group in enumerate(groups):
        if group.signs:
            sign_NU = torch.where(_sums(tensors, group) < 0, -1.0, 1.0).double()
            scale_units(tensors, group, factor_NU=sign_NU)
            found[g] = found[g] * sign_NU
    return torch.cat(found, 1)


def _sums(tensors: dict[str, torch.Tensor], group: Group) -> torch.Tensor:
    """Sum of all that makes each unit, [N, U]."""
    makers = [member for member in group.members if member.power > 0]
    return sum(
        units(tensors[member.name], member, size=group.size)
        .movedim(member.axis + 2, 1)
        .flatten(2)
        .sum(2)
        for member in makers
    )


def _scale(
    weights_RD: torch.Tensor, layout: Layout, groups: Sequence[Group], factor_RU: torch.Tensor
) -> None:
    tensors = layout.unflatten(weights_RD)
    parts = factor_RU.split([group.size for group in groups], 1)
    for group, factor in zip(groups, parts, strict=True):
        scale_units(tensors, group, factor_NU=factor)
