"""Labels of sums, products, means and channelwise operations.

Shape suffixes: P pairs of units, C channels, R numbers of a slice that is reduced, S slices.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dwf.align.trace.labels import (
    ZERO,
    Labels,
    compact,
    constant_along,
    distinct_pairs,
    mix,
    narrowed,
)
from dwf.align.trace.tracer import Traced, Tracer

_PRODUCTS = ("mul", "div")


def pair(tracer: Tracer, left: Traced, right: Traced, how: str) -> Traced:
    """Combine two tensors number by number: units that meet are one, or one lies in the other.

    Args:
        tracer: of this trace.
        left: a tensor or a constant; the two are broadcast.
        right: the other.
        how: `add`, `mul`, `div`, `extreme`, or `other`.
    """
    a, b = tracer.labels(left), tracer.labels(right)
    if a.shape != b.shape:
        shape = torch.broadcast_shapes(a.shape, b.shape)
        a, b = a.apply(lambda t: t.expand(shape)), b.apply(lambda t: t.expand(shape))
    loose_a, loose_b = (isinstance(v, Traced) and v.loose for v in (left, right))
    relation = meet(tracer, a.unit, b.unit, loose_a, loose_b, how)
    if relation.startswith("pin"):
        a, b = (
            _in_place(tracer, v) if relation == f"pin {side}" else v
            for v, side in ((a, "left"), (b, "right"))
        )
        relation = "one"
    # The finer side gives its name: a head's factor times a unit of the head is still that unit.
    unit_a, unit_b = compact(a.unit), compact(b.unit)
    first, second = (unit_b, unit_a) if relation == "left holds" else (unit_a, unit_b)
    unit = torch.where(first == 0, second, first).expand(a.shape)
    wire = _pair_wires(tracer, a, b, how, relation, (loose_a, loose_b))
    slot = mix(_seen(a), _seen(b)).expand(a.shape)
    if how in _PRODUCTS:  # a constant 0 stays one
        zero = _is_zero(a) | _is_zero(b) if how == "mul" else _is_zero(a)
        if bool(zero.any()):
            slot = torch.where(zero & (unit == 0), ZERO, slot)
    return tracer.make(Labels(unit, slot, wire=wire), loose_a and loose_b)


def _in_place(tracer: Tracer, labels: Labels) -> Labels:
    """Labels of numbers of a parameter that are no units: each is told apart by its place."""
    tracer.structure.pinned.append(compact(labels.unit).reshape(-1).numpy())
    tracer.structure.pin_wires(labels.wire)
    still = torch.zeros((), dtype=torch.int64).expand(labels.shape)
    return Labels(still, mix(labels.slot, labels.unit), wire=still)


def _is_zero(labels: Labels) -> torch.Tensor:
    return (compact(labels.unit) == 0) & (compact(labels.slot) == ZERO)


def _seen(labels: Labels) -> torch.Tensor:
    unit, slot = narrowed(labels.unit), compact(labels.slot)
    return torch.where(unit == 0, mix(slot, -1), slot)


def meet(
    tracer: Tracer,
    left: torch.Tensor,
    right: torch.Tensor,
    loose_left: bool = False,
    loose_right: bool = False,
    how: str = "mul",
) -> str:
    """Note what follows from units meeting one by one, and tell which side holds the other.

    Returns:
        `one` if they are now the same units, `right holds` if each on the left lies in one on the
        right, `left holds` the other way round; `pin left`, `pin right` where a parameter's
        numbers there each meet many units, which each meet many of them: they are no units.
    """
    structure = tracer.structure
    pairs_P2 = structure.atoms.find(distinct_pairs(left, right))
    pairs_P2 = pairs_P2[(pairs_P2 > 0).all(1) & (pairs_P2[:, 0] != pairs_P2[:, 1])]
    if not len(pairs_P2):
        return _finer(left, right)
    pairs_P2 = np.unique(pairs_P2, axis=0)
    # Units that each meet the same partner lie within it, as those of a head do. A parameter's
    # numbers are the exception: many may be of one unit, as in an embedding of places, and become
    # it.
    most_left, most_right = (int(np.bincount(pairs_P2[:, s]).max()) for s in (0, 1))
    if most_left == 1 and most_right > 1 and not loose_left:
        _hold(tracer, pairs_P2, loose_right)
        return "right holds"
    if most_right == 1 and most_left > 1 and not loose_right:
        _hold(tracer, pairs_P2[:, ::-1], loose_left)
        return "left holds"
    if most_left > 1 and most_right > 1 and loose_left != loose_right:
        return "pin left" if loose_left else "pin right"
    structure.atoms.unite(torch.from_numpy(pairs_P2[:, 0]), torch.from_numpy(pairs_P2[:, 1]))
    if how == "add" and not loose_left and not loose_right:
        structure.mark("stream", left)
    return "one"


def _finer(left: torch.Tensor, right: torch.Tensor) -> str:
    return "one" if compact(left).any() else "left holds"


def _hold(tracer: Tracer, pairs_P2: np.ndarray, loose: bool) -> None:
    """Note which units lie in which block; a block that holds all of them holds nothing back."""
    blocks = np.unique(pairs_P2[:, 1])
    if len(blocks) == 1:
        # One that meets all others is like none of its own kind: a gate that weighs a branch.
        tracer.structure.pinned.append(blocks)
        return
    for block in blocks.tolist():
        inside = tracer.structure.block_of(pairs_P2[pairs_P2[:, 1] == block, 0])
        tracer.structure.atoms.unite(torch.tensor([inside]), torch.tensor([block]))
    if loose:
        tracer.structure.loose_blocks.append(blocks)


def _pair_wires(
    tracer: Tracer, a: Labels, b: Labels, how: str, relation: str, loose: tuple[bool, bool]
) -> torch.Tensor:
    structure = tracer.structure
    wire_a, wire_b = compact(a.wire), compact(b.wire)
    both = torch.where(wire_a == 0, wire_b, wire_a).expand(a.shape)
    if how in _PRODUCTS:
        # The product of two scales is none that one wire could stand for, so it is followed only
        # where one side has no scale (a gate behind a sigmoid).
        a_fixed, b_fixed = (_is_still(tracer, w) for w in (wire_a, wire_b))
        if how == "div" and not b_fixed:
            structure.pin_wires(wire_b)
            b_fixed = True
        if not a_fixed and not b_fixed and loose[0] != loose[1]:
            # Of the two scales that of what a parameter multiplies is kept.
            structure.pin_wires(wire_a if loose[0] else wire_b)
            a_fixed, b_fixed = loose
        if a_fixed or b_fixed:
            return b.wire if a_fixed else a.wire
    elif how in ("add", "extreme") and relation == "one":
        # s a + t b is a multiple of a + b only where s = t.
        structure.wires.unite(a.wire, b.wire)
        for one, other in ((a, b), (b, a)):  # what has no scale of its own fixes the other's
            unit, slot, wire = compact(one.unit), compact(one.slot), compact(one.wire)
            still = (wire == 0) & ~((unit == 0) & (slot == ZERO))
            structure.pin_wires(torch.where(still, compact(other.wire), 0))
        if how == "extreme":
            structure.pin_wires(both, scale=False)
        return both
    structure.pin_wires(a.wire)
    structure.pin_wires(b.wire)
    return both


def _is_still(tracer: Tracer, wire: torch.Tensor) -> bool:
    """Whether none of these can be scaled, as far as is known."""
    wires = tracer.structure.wires.find(wire)
    if not wires.any():
        return True
    unscaled, unsigned = tracer.structure.still_wires()
    return bool(unscaled[wires].all() and unsigned[wires].all())


def reduce(
    tracer: Tracer, tensor: Traced, dims: int | Sequence[int] | None, keepdim: bool, how: str
) -> Traced:
    """Sum, average or take the largest over axes: `how` is `linear`, `extreme` or `other`."""
    x = tracer.labels(tensor)
    num = x.unit.dim()
    dims = range(num) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = sorted(d % num for d in dims)
    kept = [d for d in range(num) if d not in gone]
    flat = x.apply(lambda t: t.permute(*kept, *gone)[None].flatten(len(kept) + 1))
    reduced = _reduce_last(tracer, flat, how).apply(lambda t: t[0])
    if keepdim:
        for d in gone:
            reduced = reduced.apply(lambda t, d=d: t.unsqueeze(d))
    return tracer.make(reduced)


def _reduce_last(tracer: Tracer, x: Labels, how: str) -> Labels:
    structure = tracer.structure
    unit, slot, wire = narrowed(_found(tracer, x.unit)), compact(x.slot), x.wire
    num = x.unit.shape[-1]
    hashed = mix(slot)
    # A sum of numbers does not know their order, and a sum of hashes does not either.
    slot_S = (hashed.sum(-1) if slot.shape[-1] > 1 else hashed[..., 0] * num).expand(x.shape[:-1])
    if how == "other":
        structure.pin_wires(wire)
    if how == "extreme":
        structure.pin_wires(wire, scale=False)
    if unit.shape[-1] == 1:
        small = compact(wire)
        if small.shape[-1] > 1:
            structure.wires.unite(small, small[..., :1])
        return Labels(unit[..., 0].expand(x.shape[:-1]), slot_S, wire=wire[..., 0])
    structure.pin_wires(wire)
    blocks, several = _blocks_of_slices(tracer, unit)
    alike = mix(tracer.step, slot, compact(slot_S).unsqueeze(-1))
    whole = torch.broadcast_shapes(alike.shape, unit.shape)
    # Each unit's uses are summed over the places at which it is alike.
    extra = [a for a in range(unit.dim()) if unit.shape[a] == 1 and whole[a] > 1]
    structure.use(unit, alike.sum(extra, keepdim=True) if extra else alike)
    if several:
        structure.mark("blocked", unit)
    nobody = torch.zeros((), dtype=torch.int64).expand(x.shape[:-1])
    return Labels(blocks.expand(x.shape[:-1]), slot_S, wire=nobody)


def _found(tracer: Tracer, unit: torch.Tensor) -> torch.Tensor:
    small = compact(unit)
    return torch.from_numpy(tracer.structure.atoms.find(small)).view(small.shape).expand(unit.shape)


def _blocks_of_slices(tracer: Tracer, unit: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Return the block that each slice's units are, 0 where all slices hold the same units."""
    rows_SR, inverse_S = torch.unique(
        unit.flatten(0, -2).sort(1).values, dim=0, return_inverse=True
    )
    sets = [np.unique(row[row > 0]) for row in rows_SR.numpy()]
    distinct = {units.tobytes(): units for units in sets if len(units)}
    if len(distinct) < 2:
        return torch.zeros(unit.shape[:-1], dtype=torch.int64), False
    if len(np.unique(np.concatenate(sets))) < sum(map(len, distinct.values())):
        tracer.refuse(
            "it mixes units in sets that overlap, so that no order of them is free; use a "
            "normalisation over all channels or over groups of them"
        )
    block_S = torch.tensor([tracer.structure.block_of(u) if len(u) else 0 for u in sets])
    return block_S[inverse_S].view(unit.shape[:-1]), True


def channelwise(tracer: Tracer, tensor: Traced, axis: int, shape: torch.Size) -> Traced:
    """Label the result of treating each channel by itself, all channels alike.

    Args:
        tracer: of this trace.
        tensor: what goes in.
        axis: of the channels, in both.
        shape: of the result.
    """
    columns_C = tracer.structure.columns(tracer.labels(tensor), axis)
    view = [1] * len(shape)
    view[axis] = -1
    column = columns_C.apply(lambda t: t.view(view) if t.stride(0) else t[:1].view([1] * len(view)))
    # Which places a pooling mixes is of no matter: they are the same ones in every channel. So new
    # places are simply numbered, unless channels differed before.
    place = positions(shape, axis)
    slot = place if constant_along(columns_C.slot, 0) else mix(place, column.slot)
    return tracer.make(Labels(column.unit, slot, wire=column.wire).apply(lambda t: t.expand(shape)))


def positions(shape: Sequence[int], axis: int) -> torch.Tensor:
    """Return numbers of the places of a tensor, the same all along one axis, [..., 1, ...]."""
    around = [1 if a == axis % len(shape) else size for a, size in enumerate(shape)]
    return torch.arange(1, 1 + torch.Size(around).numel()).view(around)
