"""Groups of axes that permute together, and reordering the units of many networks.

Shape suffixes: N networks, D numbers of one network, U units of a group, I indices of an axis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch

from dwf.errors import ConfigError
from dwf.randomness import numpy_stream
from dwf.zoo.layout import Layout

Tensors = TypeVar("Tensors", torch.Tensor, np.ndarray)


Kind = Literal["units", "stream", "heads", "query_key", "value_output", "blocks"]


@dataclass(frozen=True)
class Member:
    """An axis of a tensor, or a part of one, that runs over the units of a group.

    From `start` on the axis is a stack [outer, size, inner] of the group's units. A plain layer has
    one of each; behind a flatten, `inner` is the number of places that a channel has, or `outer` is
    where channels come last; for heads, `inner` is what a head is wide.
    """

    name: str
    """The tensor's name in the layout."""
    axis: int
    """The axis of the tensor's shape, counted from 0."""
    start: int = 0
    """The first index that is a unit's: later parts of a concatenation, or of a packed tensor."""
    outer: int = 1
    """How many times the axis runs over all units."""
    inner: int = 1
    """How many neighbouring indices belong to one unit."""
    rows: tuple[int, int] | None = None
    """Only these indices of axis 0, where that is another axis: one block of a grouped
    convolution."""
    power: int = 0
    """Scaling a unit by s multiplies it by s to this power: 1 for what makes the unit, behind its
    last norm; -1 for what takes it in; 0 where a scale does not matter."""
    cost: bool = True
    """Whether it counts in matching. Running statistics follow the units, but say nothing."""
    places: tuple[int, ...] | None = None
    """Indices of the axis that make up the stack, where they are not its neighbours from `start`
    on: every other channel, or those around a padded shortcut's."""


@dataclass(frozen=True)
class Group:
    """Members that permute together: one order of `size` units, applied to each."""

    size: int
    """U: how many units are ordered."""
    members: tuple[Member, ...]
    kind: Kind = "units"
    """Kind of the units: hidden units; those of a residual stream; heads of an attention; within a
    head what queries and keys share, or values and output; blocks of a grouped convolution."""
    parent: int | None = None
    """Number of the group (heads or blocks) within one of whose units this group lies."""
    place: int = 0
    """Which of the parent's units that is, before the parent's units are moved."""
    scales: bool = False
    """Whether units may be scaled by s > 0: all between maker and taker is positively
    homogeneous, as ReLU is."""
    signs: bool = False
    """Whether units may change sign: all between maker and taker is odd, as tanh is."""

    @property
    def is_hidden(self) -> bool:
        """Whether its units are the hidden units of a layer."""
        return self.kind == "units"

    @property
    def is_stream(self) -> bool:
        """Whether its units are those of a residual stream."""
        return self.kind == "stream"

    @property
    def holds_others(self) -> bool:
        """Whether its units, heads or blocks, have units of their own in them."""
        return self.kind in ("heads", "blocks")


Orders = list[torch.Tensor]
"""For each group int64 of shape [N, U]: unit `order[n, u]` of network n becomes its unit u. Where
it is negative, unit `~order[n, u]` does, with its sign flipped."""


def identity_orders(groups: Sequence[Group], num_networks: int) -> Orders:
    """Return the orders that change nothing."""
    return [torch.arange(group.size).repeat(num_networks, 1) for group in groups]


def random_orders(groups: Sequence[Group], num_networks: int, *, seed: int) -> Orders:
    """Return orders drawn uniformly."""
    stream = numpy_stream(seed, "random orders")
    return [
        torch.from_numpy(stream.permuted(np.tile(np.arange(group.size), (num_networks, 1)), axis=1))
        for group in groups
    ]


def indices(member: Member, order_NU: np.ndarray) -> np.ndarray:
    """Return the orders of a member's indices that these orders of its units mean, int64_NI.

    They are counted from the member's start, or are positions among its places.
    """
    if member.outer == member.inner == 1:
        return order_NU
    size = order_NU.shape[1]
    outer_O11 = np.arange(member.outer)[:, None, None] * size
    places = (outer_O11 + order_NU[:, None, :, None]) * member.inner + np.arange(member.inner)
    return places.reshape(len(order_NU), -1)


def part(tensors: Tensors, member: Member, *, size: int) -> Tensors:
    """Return what a member of `size` units is about, of N networks' tensors, or arrays.

    A view, where the member names no places; else a copy, which `put` writes back.
    """
    return tensors[_cut(tensors.ndim, member, size)]


def put(tensors: Tensors, member: Member, *, size: int, values: Tensors | float) -> None:
    """Write values into what a member of `size` units is about: of the shape of `part`."""
    tensors[_cut(tensors.ndim, member, size)] = values


def _cut(num_axes: int, member: Member, size: int) -> tuple[slice | list[int], ...]:
    stop = member.start + member.outer * size * member.inner
    cut: list[slice | list[int]] = [slice(None)] * num_axes
    if member.rows is not None:
        cut[1] = slice(*member.rows)
    cut[member.axis + 1] = slice(member.start, stop)
    if member.places is not None:
        cut[member.axis + 1] = list(member.places)
    return tuple(cut)


def reorder(tensors: np.ndarray, member: Member, *, order_NU: np.ndarray) -> None:
    """Move the units of a member in place, one order for each of N networks' arrays."""
    size = order_NU.shape[1]
    moved = part(tensors, member, size=size)
    # One network at a time: its tensor stays in cache, and whole rows are copied.
    for n, from_I in enumerate(indices(member, order_NU)):
        moved[n] = moved[n].take(from_I, member.axis)
    if member.places is not None:
        put(tensors, member, size=size, values=moved)


def units(tensors: torch.Tensor, member: Member, *, size: int) -> torch.Tensor:
    """Return the same, the member's axis as three: [outer, U, inner]."""
    stack = (member.outer, size, member.inner)
    return part(tensors, member, size=size).unflatten(member.axis + 1, stack)


def scale_units(
    tensors: Mapping[str, torch.Tensor], group: Group, *, factor_NU: torch.Tensor
) -> None:
    """Scale the units of a group in place, each member to its power; the function stays.

    Args:
        tensors: name -> tensor of N networks, [N, *shape].
        group: one whose units may be scaled so.
        factor_NU: of each unit; above 0, or 1 and -1 where signs change.
    """
    for member in group.members:
        if member.power:
            view = units(tensors[member.name], member, size=group.size)
            shape = [len(factor_NU)] + [1] * (view.dim() - 1)
            shape[member.axis + 2] = group.size
            view.mul_((factor_NU**member.power).view(shape))
            if member.places is not None:
                values = view.flatten(member.axis + 1, member.axis + 3)
                put(tensors[member.name], member, size=group.size, values=values)


def permute(
    weights_ND: torch.Tensor, layout: Layout, *, groups: Sequence[Group], orders: Orders
) -> torch.Tensor:
    """Reorder units; exact: the numbers only move.

    Groups are applied in their order. Those within a head or a block come before it: their orders
    are about its units, wherever it is moved then.

    Args:
        weights_ND: networks of this layout, any floating type.
        layout: their layout.
        groups: the groups of their architecture.
        orders: see `Orders`.

    Returns:
        New rows, same shape and type.
    """
    permuted_ND = weights_ND.clone()
    tensors = layout.unflatten(permuted_ND)
    for group, order_NU in zip(groups, orders, strict=True):
        flips_NU = order_NU < 0
        from_NU = torch.where(flips_NU, ~order_NU, order_NU).numpy()
        for member in group.members:
            reorder(tensors[member.name].numpy(), member, order_NU=from_NU)
        if flips_NU.any():
            scale_units(tensors, group, factor_NU=torch.where(flips_NU, -1.0, 1.0))
    return permuted_ND


def invert(groups: Sequence[Group], orders: Orders) -> Orders:
    """Return the orders that undo these.

    A group within a head or block is undone where the parent has moved it to: its inverse belongs
    to another place, and so to the sibling group of that place.
    """
    came_from = [
        None if group.parent is None else orders[group.parent][:, group.place] for group in groups
    ]
    return [found.argsort(1) for found in _of_siblings(groups, orders, came_from)]


def compose(groups: Sequence[Group], first: Orders, *, then: Orders) -> Orders:
    """Return the orders that do what these do one after the other; no sign is flipped.

    A group within a head or block takes the second order of the place that the first moved it to.
    """
    went_to = [None if g.parent is None else first[g.parent].argsort(1)[:, g.place] for g in groups]
    then_moved = _of_siblings(groups, then, went_to)
    return [one_NU.gather(1, two_NU) for one_NU, two_NU in zip(first, then_moved, strict=True)]


def _of_siblings(
    groups: Sequence[Group], orders: Orders, places: Sequence[torch.Tensor | None]
) -> Orders:
    """Return for each group the order of its sibling in another place, [N] of them; else its own.

    The groups of every place come in one order: the first there is the sibling of the first here.
    """
    found = list(orders)
    for g, group in enumerate(groups):
        place_N = places[g]
        if place_N is None:
            continue
        by_place: dict[int, list[int]] = {}
        for h, other in enumerate(groups):
            if other.parent == group.parent:
                by_place.setdefault(other.place, []).append(h)
        here = by_place[group.place].index(g)
        found[g] = torch.stack(
            [orders[by_place[place][here]][n] for n, place in enumerate(place_N.tolist())]
        )
    return found


def refuse_not_finite(weights_ND: torch.Tensor) -> None:
    """Raise a ConfigError that names the first networks whose numbers are not all finite."""
    wrong = (~weights_ND.isfinite().all(1)).nonzero().squeeze(1).tolist()
    if wrong:
        raise ConfigError(
            f"{len(wrong)} of {len(weights_ND)} networks hold numbers that are not finite, which "
            f"no order brings closer to any other: rows {', '.join(map(str, wrong[:4]))}; leave "
            "them out"
        )
