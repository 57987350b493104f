"""Steps of matching, each solved at once: a group, or a layer's heads (blocks) and all in them.

Shape suffixes: H places (heads; one for a group by itself), S units of a place, U = H * S units,
E indices of an axis that belong to one unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dwf.align.groups import Group, Member
from dwf.zoo.layout import Layout

Axis = tuple[str, int]
"""A tensor's name and an axis of its shape."""


@dataclass(frozen=True)
class Stack:
    """Groups of one kind, one in each place of a parent, seen as one group; or one group alone."""

    groups: tuple[int, ...]
    """Their numbers, by place."""
    size: int
    """S: units of a place."""
    axes: dict[Axis, np.ndarray]
    """The indices of each axis that belong to each unit, int64, shape [U, E]."""
    signs: bool = False
    """Whether a unit may change sign in all of them."""


@dataclass(frozen=True)
class Coupled:
    """A grouped convolution's weight: rows of one stack, and within a block columns of another."""

    name: str
    row_stack: int | None
    """Number of the stack of its rows; None where rows stay in order within their block."""
    column_stack: int
    rows: np.ndarray
    """Indices of axis 0, int64, shape [H, S or 1, E]."""
    column_axis: int
    columns: np.ndarray
    """Indices of that axis, the same for each block, int64, shape [S, E]."""


@dataclass(frozen=True)
class Step:
    """One group; or heads (blocks) and the groups within them."""

    parent: int | None
    """Number of the group of heads or blocks."""
    places: int
    """H."""
    stacks: tuple[Stack, ...]
    own: dict[Axis, np.ndarray]
    """Indices that go with a place but with no unit within it, int64, shape [H, E]."""
    coupled: tuple[Coupled, ...] = ()
    touched: frozenset[Axis] = field(default=frozenset())
    """The axes that it permutes; coupled tensors, which nothing else permutes, aside."""
    quadratic: frozenset[str] = field(default=frozenset())
    """Tensors that it permutes on more than one axis."""


def steps_of(layout: Layout, groups: Sequence[Group]) -> list[Step]:
    """Return the steps that make up these groups; tensors that cost nothing are left out."""
    children: dict[int, list[int]] = {}
    for g, group in enumerate(groups):
        if group.parent is not None:
            children.setdefault(group.parent, []).append(g)
    steps = []
    for g, group in enumerate(groups):
        if group.parent is None:
            steps.append(_step(g, children.get(g, []), layout, groups))
    return steps


def count_disjoint(layout: Layout, groups: Sequence[Group]) -> int:
    """Return how many of the groups come before the first that moves what one before it moves.

    Such groups, as the order within queries and keys that all heads share, come last. They move
    the same numbers as the heads do, to the same effect whichever is first.
    """
    moved: dict[Axis, np.ndarray] = {}
    shapes = {entry.name: entry.shape for entry in layout.entries}
    for g, group in enumerate(groups):
        ours = {axis: places.reshape(-1) for axis, places in _axes([group]).items()}
        again = any(axis in moved and moved[axis][places].any() for axis, places in ours.items())
        if again and group.parent is None and not group.holds_others:
            return g
        for (name, axis), places in ours.items():
            length = shapes[name][axis]
            moved.setdefault((name, axis), np.zeros(length, dtype=bool))[places] = True
    return len(groups)


def _step(g: int, children: list[int], layout: Layout, groups: Sequence[Group]) -> Step:
    group = groups[g]
    if not children:
        alone = Stack((g,), group.size, axes=_axes([group]), signs=group.signs)
        stacks, own, coupled = [alone], {}, []
        places, parent = 1, None
    else:
        places, parent = group.size, g
        of_kinds = _by_place(children, groups, places)
        stacks = [
            Stack(tuple(numbers), groups[numbers[0]].size, axes=_axes([groups[h] for h in numbers]))
            for numbers in of_kinds
        ]
        own = _axes([group])
        coupled = [
            _coupled(member, k, stacks, own, groups[numbers[0]].size)
            for k, numbers in enumerate(of_kinds)
            for member in groups[numbers[0]].members
            if member.rows is not None and member.cost
        ]
        # Blocks take in both axes of a coupled tensor at once; as a plain axis it would count
        # twice.
        for pair in coupled:
            for axes in (own, *(stack.axes for stack in stacks)):
                axes.pop((pair.name, 0), None)
        own = _uncovered(own, stacks)
    touched = {axis for axes in (own, *(s.axes for s in stacks)) for axis in axes}
    names = [name for name, _ in touched]
    return Step(
        parent,
        places,
        stacks=tuple(stacks),
        own=own,
        coupled=tuple(coupled),
        touched=frozenset(touched),
        quadratic=frozenset(name for name in names if names.count(name) > 1),
    )


def _by_place(children: list[int], groups: Sequence[Group], places: int) -> list[list[int]]:
    """The groups within heads, those that correspond together, each list in order of places."""
    at: list[list[int]] = [[] for _ in range(places)]
    for g in children:
        at[groups[g].place].append(g)
    kinds = [[(groups[g].kind, groups[g].size, len(groups[g].members)) for g in own] for own in at]
    if any(kind != kinds[0] for kind in kinds):
        parent = groups[children[0]].parent
        raise ValueError(f"the places of group {parent} do not hold the same groups")
    return [list(numbers) for numbers in zip(*at, strict=True)]


def _axes(groups: Sequence[Group]) -> dict[Axis, np.ndarray]:
    """Indices of each axis that belong to each unit of these groups, one group after the other."""
    found: dict[Axis, list[np.ndarray]] = {}
    for group in groups:
        of_group: dict[Axis, list[np.ndarray]] = {}
        for member in group.members:
            if member.cost and member.rows is None:
                places = _places(member, group.size)
                of_group.setdefault((member.name, member.axis), []).append(places)
        for axis, parts in of_group.items():
            found.setdefault(axis, []).append(np.concatenate(parts, 1))
    return {axis: np.concatenate(parts) for axis, parts in found.items()}


def _places(member: Member, size: int) -> np.ndarray:
    """Indices that belong to each unit, int64, shape [U, E]."""
    flat = np.arange(member.outer * size * member.inner)
    by_unit = flat.reshape(member.outer, size, member.inner).swapaxes(0, 1)
    by_unit = by_unit.reshape(size, -1)
    return member.start + by_unit if member.places is None else np.array(member.places)[by_unit]


def _coupled(
    member: Member, k: int, stacks: list[Stack], own: dict[Axis, np.ndarray], size: int
) -> Coupled:
    axis = (member.name, 0)
    places = len(stacks[k].groups)
    row_stack = next((r for r, stack in enumerate(stacks) if axis in stack.axes), None)
    if row_stack is None:
        rows = own[axis][:, None]
    else:
        indices_UE = stacks[row_stack].axes[axis]
        rows = indices_UE.reshape(places, stacks[row_stack].size, -1)
    return Coupled(
        member.name,
        row_stack,
        column_stack=k,
        rows=rows,
        column_axis=member.axis,
        columns=_places(member, size),
    )


def _uncovered(own: dict[Axis, np.ndarray], stacks: list[Stack]) -> dict[Axis, np.ndarray]:
    """Return the parent's indices that no group within it has."""
    left = {}
    for axis, indices_HE in own.items():
        covered = [stack.axes[axis].reshape(-1) for stack in stacks if axis in stack.axes]
        if covered:
            keep = ~np.isin(indices_HE[0], np.concatenate(covered))
            indices_HE = indices_HE[:, keep]
        if indices_HE.shape[1]:
            left[axis] = indices_HE
    return left
