"""Networks brought into the order, scale and signs of units in which a predictor looks at them.

All of it keeps what a network computes. What is found of a row is kept: some bytes for each unit,
not each weight.

Shape suffixes: N rows of a zoo, B rows of a batch, D numbers of one network, U units of a group.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from dwf.align.activation import Activations, training_images
from dwf.align.canonical import balance_with_scales, norm_orders, transport_orders
from dwf.align.groups import (
    Group,
    Member,
    Orders,
    compose,
    identity_orders,
    permute,
    scale_units,
    units,
)
from dwf.align.symmetry import zoo_symmetry
from dwf.predictors.config import WeightNetConfig
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo

_IMAGES_SEED = 0


class Frames:
    """Reads networks of one zoo in their canonical frame.

    Args:
        zoo: the zoo.
        config: which frame.
        onto_D: the network whose units others are carried onto, where the settings ask for one.

    Raises:
        ConfigError: the symmetry of the networks is not known, or what units do cannot be seen.
        DataUnavailable: `activation_sort` has no training images.
    """

    def __init__(self, zoo: Zoo, config: WeightNetConfig, *, onto_D: torch.Tensor | None = None):
        self._zoo, self._layout, self._config = zoo, zoo.layout, config
        self._changes = config.canonical != "none" or config.scale != "none" or config.signs
        if self._changes:
            self._groups = zoo_symmetry(zoo)
            self._scaled = [g for g in self._groups if g.scales and config.scale == "balanced"]
            self._find = self._finder(onto_D)
            self._known_N = np.zeros(len(zoo), bool)
            self._orders = [np.zeros((len(zoo), g.size), np.int32) for g in self._groups]
            self._logs = [np.zeros((len(zoo), g.size)) for g in self._scaled]

    def read(self, rows_B: np.ndarray) -> torch.Tensor:
        """Return weights_BD, float32, of some rows in their frame."""
        weights_BD = torch.from_numpy(self._zoo.read(rows_B))
        if not self._changes:
            return weights_BD
        new = ~self._known_N[rows_B]
        if new.any():
            self._learn(rows_B[new], weights_BD[torch.from_numpy(new)])
        logs = [torch.from_numpy(log_NU[rows_B]) for log_NU in self._logs]
        scaled_BD = _rescaled(weights_BD, self._layout, self._scaled, logs)
        orders = [torch.from_numpy(order_NU[rows_B]).long() for order_NU in self._orders]
        return permute(scaled_BD, self._layout, groups=self._groups, orders=orders)

    def _learn(self, rows_B: np.ndarray, weights_BD: torch.Tensor) -> None:
        _, logs = balance_with_scales(weights_BD, self._layout, groups=self._scaled)
        for log_NU, log_BU in zip(self._logs, logs, strict=True):
            log_NU[rows_B] = log_BU.numpy()
        weights_BD = _rescaled(weights_BD, self._layout, self._scaled, logs)
        negative = [torch.zeros(len(rows_B), g.size, dtype=torch.bool) for g in self._groups]
        if self._config.signs:
            weights_BD, negative = with_positive_signs(
                weights_BD, self._layout, groups=self._groups
            )
        orders = self._find(weights_BD)
        for order_NU, order_BU, flips_BU in zip(self._orders, orders, negative, strict=True):
            order_NU[rows_B] = torch.where(flips_BU.gather(1, order_BU), ~order_BU, order_BU)
        self._known_N[rows_B] = True

    def _finder(self, onto_D: torch.Tensor | None) -> Callable[[torch.Tensor], Orders]:
        """Return what finds orders of rows that are scaled and signed."""
        kind, layout, groups = self._config.canonical, self._layout, self._groups
        if kind == "none":
            return lambda weights_BD: identity_orders(groups, len(weights_BD))
        if kind == "norm_sort":
            return lambda weights_BD: norm_orders(weights_BD, layout, groups=groups)
        if kind == "optimal_transport":
            return lambda weights_BD: transport_orders(
                weights_BD, layout, groups=groups, onto_D=onto_D
            )
        images_BX = training_images(
            self._zoo.load_data(), self._config.activation_images, seed=_IMAGES_SEED
        )
        network = self._zoo.build_network()
        activations = Activations(network, layout, groups=groups, images_BX=images_BX)
        return lambda weights_BD: _sort_activations(activations, weights_BD, layout, groups)


def _sort_activations(
    activations: Activations, weights_BD: torch.Tensor, layout: Layout, groups: Sequence[Group]
) -> Orders:
    """Sort by activations; units that vary alike, as those that are dead, by their norms."""
    first = norm_orders(weights_BD, layout, groups=groups)
    sorted_BD = permute(weights_BD, layout, groups=groups, orders=first)
    return compose(groups, first, then=activations.sort(sorted_BD))


def _rescaled(
    weights_BD: torch.Tensor,
    layout: Layout,
    groups: Sequence[Group],
    logs: Sequence[torch.Tensor],
) -> torch.Tensor:
    if not groups:
        return weights_BD
    rescaled_BD = weights_BD.double()
    tensors = layout.unflatten(rescaled_BD)
    for group, log_BU in zip(groups, logs, strict=True):
        scale_units(tensors, group, factor_NU=log_BU.exp())
    return rescaled_BD.float()


def with_positive_signs(
    weights_BD: torch.Tensor, layout: Layout, *, groups: Sequence[Group]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Flip units, of groups that may, until what makes each is positive; the function stays.

    That is the sum of its own numbers, the bias, where it has any; else the sum of its incoming
    weights, which those before it have been given their signs for.

    Returns:
        The rows, and of each group whose units were flipped, bool_BU.
    """
    signed_BD = weights_BD.clone()
    tensors = layout.unflatten(signed_BD)
    flips = []
    for group in groups:
        may_flip = group.signs and group.parent is None
        flips_BU = torch.zeros(len(weights_BD), group.size, dtype=torch.bool)
        if may_flip:
            makers = [m for m in group.members if m.power > 0 and m.cost]
            own = [m for m in makers if len(layout.by_name[m.name].shape) == 1]
            flips_BU = _sums(tensors, own or makers, group.size) < 0
            scale_units(tensors, group, factor_NU=torch.where(flips_BU, -1.0, 1.0))
        flips.append(flips_BU)
    return signed_BD, flips


def _sums(tensors: dict[str, torch.Tensor], makers: Sequence[Member], size: int) -> torch.Tensor:
    """Return the sum of what makes each unit, float64_BU."""
    return sum(
        units(tensors[m.name], m, size=size).movedim(m.axis + 2, 1).flatten(2).double().sum(2)
        for m in makers
    )
