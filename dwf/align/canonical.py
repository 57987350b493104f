"""One scale for every hidden unit of a ReLU network, chosen among those that compute the same.

A ReLU unit's incoming weights and bias may be multiplied by any s > 0 and its outgoing weights by
1 / s. A unit is balanced where the norms of the two are equal. With all units balanced the sum of
all squared weights is the least that rescaling can reach, which happens at one point alone.

Source: Stock et al., Equi-normalization of Neural Networks, ICLR 2019 (arXiv:1902.10416).

Shape suffixes: N networks, D numbers of one network, U units of a group.
"""

from collections.abc import Mapping, Sequence

import torch

from dwf.align.symmetry import Group
from dwf.zoo.layout import Layout

# A network is balanced once a sweep changes no scale by more than this share.
_TOLERANCE = 1e-10
_MAX_SWEEPS = 1000


def balance(weights_ND: torch.Tensor, layout: Layout, groups: Sequence[Group]) -> torch.Tensor:
    """Rescale hidden units so that incoming and outgoing norms are equal; the function stays.

    Coordinate descent in float64: a sweep balances the groups one after the other, each exactly
    while the others are held; one hidden layer is balanced after the first. A unit whose incoming
    weights and bias, or whose outgoing weights, are all zero has no such scale and keeps its own.

    Args:
        weights_ND: networks of this layout, any floating type.
        layout: their layout.
        groups: the groups of their architecture; those that do not rescale are left as they are.

    Returns:
        Rows of the same shape and type; what becomes of a network does not depend on the others.
        Where no group rescales: `weights_ND` itself.
    """
    groups = [group for group in groups if group.rescales]
    if not groups:
        return weights_ND
    balanced_ND = weights_ND.to(torch.float64, copy=True)
    tensors = layout.unflatten(balanced_ND)
    moves_N = torch.ones(len(weights_ND), dtype=torch.bool)
    for _ in range(_MAX_SWEEPS):
        largest_N = torch.zeros(len(weights_ND), dtype=torch.float64)
        for group in groups:
            log_scale_NU = _log_scales(tensors, group) * moves_N.unsqueeze(1)
            _rescale(tensors, group, log_scale_NU.exp())
            largest_N = torch.maximum(largest_N, log_scale_NU.abs().amax(1))
        moves_N = largest_N > _TOLERANCE
        if not moves_N.any():
            break
    return balanced_ND.to(weights_ND.dtype)


def _log_scales(tensors: Mapping[str, torch.Tensor], group: Group) -> torch.Tensor:
    """Log of what balances each unit: half of log (outgoing norm / incoming norm)."""
    incoming_NU = outgoing_NU = 0.0
    for name, axis in group.members:
        other_axes = [a + 1 for a in range(tensors[name].dim() - 1) if a != axis]
        tensor = tensors[name].square()
        squared_NU = tensor.sum(other_axes) if other_axes else tensor
        if axis == 0:
            incoming_NU = incoming_NU + squared_NU
        else:
            outgoing_NU = outgoing_NU + squared_NU
    found_NU = (outgoing_NU / incoming_NU).log() / 4  # of squares, and half of that
    return torch.where(found_NU.isfinite(), found_NU, 0.0)


def _rescale(tensors: Mapping[str, torch.Tensor], group: Group, scale_NU: torch.Tensor) -> None:
    for name, axis in group.members:
        shape = [len(scale_NU)] + [1] * (tensors[name].dim() - 1)
        shape[axis + 1] = group.size
        factor = scale_NU if axis == 0 else 1 / scale_NU
        tensors[name].mul_(factor.view(shape))
