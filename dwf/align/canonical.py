"""Orders and scales of units that a network has by itself, without a reference.

A unit that is positively homogeneous between its makers and takers (ReLU) may have what makes it
multiplied by any s > 0 and what takes it in by 1 / s. A unit is balanced where the norms of the two
are equal. With all units balanced the sum of all squared weights is the least that rescaling can
reach, which happens at one point alone.

Source of balance: Stock et al., Equi-normalization of Neural Networks, ICLR 2019
(arXiv:1902.10416).

Shape suffixes: N networks, D numbers of one network, U units of a group, F other numbers.
"""

from collections.abc import Mapping, Sequence

import torch

from dwf.align.groups import Group, Member, Orders, compose, permute, scale_units, units
from dwf.align.matching import Ascent, Target, count_disjoint
from dwf.randomness import numpy_stream
from dwf.zoo.layout import Layout

# A network is balanced once a sweep changes no scale by more than this share.
_TOLERANCE = 1e-10
_MAX_SWEEPS = 1000


def balance(weights_ND: torch.Tensor, layout: Layout, *, groups: Sequence[Group]) -> torch.Tensor:
    """Rescale units so that the norms of makers and takers are equal; the function stays.

    Coordinate descent in float64: a sweep balances the groups one after the other, each exactly
    while the others are held; one hidden layer is balanced after the first. A unit whose makers'
    or whose takers' weights are all zero has no such scale and keeps its own.

    Args:
        weights_ND: networks of this layout, any floating type.
        layout: their layout.
        groups: the groups of their architecture; those that do not scale are left as they are.

    Returns:
        Rows of the same shape and type; what becomes of a network does not depend on the others.
        Where no group scales: `weights_ND` itself.
    """
    return balance_with_scales(weights_ND, layout, groups=groups)[0]


def balance_with_scales(
    weights_ND: torch.Tensor, layout: Layout, *, groups: Sequence[Group]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Rescale units as `balance` does; also return by how much.

    Returns:
        The balanced rows, and of each group that scales the logarithm of what its units were scaled
        by, float64_NU: `scale_units` by the inverse gives back the rows as they were.
    """
    groups = [group for group in groups if group.scales]
    if not groups:
        return weights_ND, []
    balanced_ND = weights_ND.to(torch.float64, copy=True)
    tensors = layout.unflatten(balanced_ND)
    num = len(weights_ND)
    totals = [torch.zeros(num, group.size, dtype=torch.float64) for group in groups]
    moves_N = torch.ones(num, dtype=torch.bool)
    for _ in range(_MAX_SWEEPS):
        largest_N = torch.zeros(num, dtype=torch.float64)
        for group, total_NU in zip(groups, totals, strict=True):
            log_scale_NU = _log_scales(tensors, group) * moves_N.unsqueeze(1)
            scale_units(tensors, group, factor_NU=log_scale_NU.exp())
            total_NU += log_scale_NU
            largest_N = torch.maximum(largest_N, log_scale_NU.abs().amax(1))
        moves_N = largest_N > _TOLERANCE
        if not moves_N.any():
            break
    return balanced_ND.to(weights_ND.dtype), totals


def norm_orders(weights_ND: torch.Tensor, layout: Layout, *, groups: Sequence[Group]) -> Orders:
    """Return the orders that sort each group's units by the norm of all that touches them.

    The largest comes first. The norms do not depend on any order, so a network whose units were
    permuted comes out the same.
    """
    tensors = layout.unflatten(weights_ND)
    return [
        sum(
            _units(tensors[member.name], member, group.size).double().square().sum(2)
            for member in group.members
            if member.cost
        ).argsort(dim=1, descending=True, stable=True)
        for group in groups
    ]


def transport_orders(
    weights_ND: torch.Tensor,
    layout: Layout,
    *,
    groups: Sequence[Group],
    seed: int = 0,
    onto_D: torch.Tensor | None = None,
) -> Orders:
    """Return the orders that carry each layer's units onto points drawn once, layer after layer.

    The points are standard normal, as many as a layer has units, with one coordinate for every
    number that touches a unit; or they are the units of a network. Units and points have equal
    mass, so that the best transport is an assignment; the layers go from what stays in place
    inwards, and each sees those before it in their new order. (Source: Singh and Jaggi, OTFusion,
    NeurIPS 2020, arXiv:1910.05653, which carries the units of one network onto another's in this
    way.)

    Args:
        weights_ND: the networks, float32.
        layout: their layout.
        groups: the groups of their architecture.
        seed: seed of the points.
        onto_D: a network whose units are the points, float32; none: they are drawn.
    """
    points_D = onto_D
    if points_D is None:
        drawn_D = numpy_stream(seed, "transport").standard_normal(layout.size, dtype="float32")
        points_D = torch.from_numpy(drawn_D)
    # Units of which nothing is known yet, as those that all weights into are 0, fit every point
    # alike. Sorted first, they come in one order whatever order they had.
    sorted_first = norm_orders(weights_ND, layout, groups=groups)
    sorted_ND = permute(weights_ND, layout, groups=groups, orders=sorted_first)
    num, orders = count_disjoint(layout, groups), []
    moved_ND = sorted_ND
    for some in (groups[:num], groups[num:]):
        if some:
            ascent = Ascent(moved_ND, Target(points_D, layout, groups=some))
            ascent.start(keep_better=False)
            orders += ascent.coded_orders()
            moved_ND = permute(moved_ND, layout, groups=some, orders=orders[-len(some) :])
    return compose(groups, sorted_first, then=orders)


def squared_norms(
    tensors: Mapping[str, torch.Tensor], group: Group
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the squared norms of what makes each unit and of what takes it in, [N, U] each.

    Args:
        tensors: name -> tensor of N networks, [N, *shape].
        group: one that scales.
    """
    incoming_NU = outgoing_NU = 0.0
    for member in group.members:
        if member.power:
            part = _units(tensors[member.name], member, group.size)
            squared_NU = part.square().sum(2)
            if member.power > 0:
                incoming_NU = incoming_NU + squared_NU
            else:
                outgoing_NU = outgoing_NU + squared_NU
    return incoming_NU, outgoing_NU


def _log_scales(tensors: Mapping[str, torch.Tensor], group: Group) -> torch.Tensor:
    """Log of what balances each unit: half of log (takers' norm / makers' norm)."""
    incoming_NU, outgoing_NU = squared_norms(tensors, group)
    found_NU = (outgoing_NU / incoming_NU).log() / 4  # of squares, and half of that
    if _meets_itself(group):
        found_NU = found_NU / 2  # both ends of a weight move at once: whole steps would swing
    return torch.where(found_NU.isfinite(), found_NU, 0.0)


def _meets_itself(group: Group) -> bool:
    names = {sign: {m.name for m in group.members if m.power * sign > 0} for sign in (1, -1)}
    return bool(names[1] & names[-1])


def _units(tensors: torch.Tensor, member: Member, size: int) -> torch.Tensor:
    """All that touches each unit of a member: [N, *shape] -> [N, U, F]."""
    return units(tensors, member, size=size).movedim(member.axis + 2, 1).flatten(2)
