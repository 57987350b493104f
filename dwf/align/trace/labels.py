"""Labels of the numbers of an activation: each one's unit, its place within it, and its scale.

Every number of an activation carries three labels. `unit` names what may be permuted: 0 for a
number that stays where it is (images, constants), else an *atom*: a channel, a feature, a head.
`slot` is a hash of where the number stands within its unit (a pixel, a token). `wire` names what
may be rescaled: a unit between what makes it and what takes it in. A network's layers then say
which atoms are one (a residual sum), and where each atom is used; `read_groups.py` reads the
symmetries off.

Shape suffixes: labels have their activation's shape. P pairs, I numbers on an axis, K slices.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

_ODD = -7046029254386353131  # 2^64 over the golden ratio, as int64
_FIXED = 0x5851F42D4C957F2D


def mix(*parts: torch.Tensor | int) -> torch.Tensor:
    """Return a 64-bit hash of each tuple of int64, elementwise; the order of the parts counts."""
    hashed = torch.zeros((), dtype=torch.int64)
    for part in parts:
        hashed = (hashed ^ torch.as_tensor(part)) * _ODD + len(parts)
        hashed = (hashed ^ (hashed >> 32)) * -4658895280553007687
        hashed = hashed ^ (hashed >> 29)
    return hashed


def compact(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor with axes along which it is expanded shrunk to one."""
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if size > 1 and stride == 0:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


def constant_along(tensor: torch.Tensor, axis: int) -> bool:
    """Tell whether nothing changes along an axis."""
    if tensor.shape[axis] <= 1 or tensor.stride(axis) == 0:
        return True
    small = compact(tensor)
    return bool((small == small.narrow(axis, 0, 1)).all())


def narrowed(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor with every axis along which nothing changes shrunk to one."""
    for axis in range(tensor.dim()):
        if tensor.shape[axis] > 1 and constant_along(tensor, axis):
            tensor = tensor.narrow(axis, 0, 1)
    return tensor


@dataclass
class Labels:
    """The labels of one activation: int64 tensors of its shape, expanded where they can be."""

    unit: torch.Tensor
    slot: torch.Tensor
    wire: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        """The activation's shape."""
        return self.unit.shape

    def apply(self, move) -> "Labels":
        """Return labels of a tensor whose numbers were moved: `move` does that to a tensor."""
        return Labels(move(self.unit), move(self.slot), wire=move(self.wire))

    @property
    def fixed(self) -> bool:
        """Whether no number is a unit's."""
        return not bool(compact(self.unit).any())


class Classes:
    """Numbered things of which some turn out to be one (union-find on arrays)."""

    def __init__(self):
        self._parent = np.zeros(1, dtype=np.int64)  # 0 is nobody

    def new(self, count: int) -> torch.Tensor:
        """Return `count` new ones, in ascending order."""
        first = len(self._parent)
        fresh = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, fresh])
        return torch.from_numpy(fresh.copy())

    def __len__(self) -> int:
        return len(self._parent)

    def find(self, names: np.ndarray | torch.Tensor) -> np.ndarray:
        """Return the first of those that each is one with."""
        names = np.asarray(names)
        while True:
            above = np.asarray(self._parent[names])  # of shape [], too
            if np.array_equal(above, names):
                return above
            names = above

    def unite(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Make each on the left one with its partner on the right, 0 with nobody."""
        pairs_P2 = distinct_pairs(left, right)
        pairs_P2 = pairs_P2[(pairs_P2 > 0).all(1)]
        # Of an atom's several partners only the one written last is kept below, so the pairs are
        # looked at again until both ends of each have one root. Roots point to smaller numbers: no
        # circle can close.
        while len(pairs_P2):
            roots_P2 = np.sort(self.find(pairs_P2), axis=1)
            pairs_P2 = roots_P2[roots_P2[:, 0] != roots_P2[:, 1]]
            self._parent[pairs_P2[:, 1]] = pairs_P2[:, 0]

    def roots(self) -> np.ndarray:
        """Return `find` of all."""
        self._parent = self.find(self._parent)
        return self._parent


def distinct_pairs(left: torch.Tensor, right: torch.Tensor) -> np.ndarray:
    """Return the different pairs that two label tensors make, int64 [P, 2]."""
    left, right = torch.broadcast_tensors(left, right)
    # Activations have millions of numbers but few different pairs: what repeats is dropped before
    # it is written out, then one int64 stands for a pair.
    left, right = torch.broadcast_tensors(narrowed(left), narrowed(right))
    key = left.reshape(-1) * (1 << 31) + right.reshape(-1)
    key = torch.unique(key)
    return torch.stack([key >> 31, key & ((1 << 31) - 1)], 1).numpy()


@dataclass
class Binding:
    """One use of an axis of a tensor: which units its indices are, int64 [blocks, I]."""

    name: str
    axis: int
    start: int
    unit: torch.Tensor
    slot: torch.Tensor
    wire: torch.Tensor
    power: int = 0
    cost: bool = True


@dataclass
class Structure:
    """All that a trace finds out about a network's units."""

    atoms: Classes = field(default_factory=Classes)
    wires: Classes = field(default_factory=Classes)
    bindings: list[Binding] = field(default_factory=list)
    uses: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """(atoms, hash of one way in which each is used): atoms used differently cannot change
    places."""
    within: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """(atoms, the block each lies in); blocks are atoms, too."""
    marks: dict[str, list[np.ndarray]] = field(default_factory=dict)
    """Atoms by what they were seen in: a sum of activations, queries and keys, ..."""
    tied: list[tuple[int, np.ndarray]] = field(default_factory=list)
    """(atom, units that it goes with, one in each block): as a norm's weight that all heads share.
    The blocks may change places, and what is tied only all at once."""
    pinned: list[np.ndarray] = field(default_factory=list)
    """Atoms that stay where they are."""
    unscaled: list[np.ndarray] = field(default_factory=list)
    """Wires that cannot be scaled."""
    unsigned: list[np.ndarray] = field(default_factory=list)
    """Wires that cannot change sign."""
    loose_blocks: list[np.ndarray] = field(default_factory=list)
    """Blocks that a parameter's single numbers are: many units share one number."""
    _blocks: dict[bytes, int] = field(default_factory=dict)

    def use(self, unit: torch.Tensor, how: torch.Tensor) -> None:
        """Note one use of each unit; a hash per unit, 0 among the units is passed over."""
        unit, how = torch.broadcast_tensors(unit, how)
        unit, how = unit.reshape(-1).numpy(), how.reshape(-1).numpy()
        self.uses.append((unit[unit > 0], how[unit > 0]))

    def relate(self, children: np.ndarray, blocks: np.ndarray) -> None:
        """Note that each child lies within its block."""
        self.within.append((children, blocks))

    def block_of(self, children: np.ndarray) -> int:
        """Return the block that holds exactly these atoms."""
        children = np.unique(self.atoms.find(children))
        # A block is known by what it holds now. Two whose atoms turn out to be one only later are
        # made one by `colours.forest`.
        key = children.tobytes()
        if key not in self._blocks:
            self._blocks[key] = int(self.atoms.new(1))
            self.relate(children, np.full(len(children), self._blocks[key]))
        return self._blocks[key]

    def mark(self, kind: str, unit: torch.Tensor) -> None:
        """Note that these units were seen as `kind`."""
        found = torch.unique(compact(unit)).numpy()
        self.marks.setdefault(kind, []).append(found[found > 0])

    def pin_wires(self, wire: torch.Tensor, scale: bool = True, *, sign: bool = True) -> None:
        """Note that these wires cannot be scaled, or cannot change sign."""
        found = torch.unique(compact(wire)).numpy()
        if scale:
            self.unscaled.append(found)
        if sign:
            self.unsigned.append(found)

    def still_wires(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for each wire whether it is known to have no scale, and no sign."""
        return self._still(self.unscaled), self._still(self.unsigned)

    def _still(self, noted: list[np.ndarray]) -> np.ndarray:
        still = np.zeros(len(self.wires), dtype=bool)
        still[self.wires.find(np.concatenate([[0], *noted]))] = True
        noted[:] = [np.flatnonzero(still)]
        return still

    def columns(self, labels: Labels, axis: int) -> Labels:
        """Return what each index of an axis is about, [I], where all else is treated alike.

        Along the other axes an index belongs to one unit, so units that differ there become one.
        """
        unit, slot, wire = (t.movedim(axis, -1) for t in (labels.unit, labels.slot, labels.wire))
        small, small_wire = narrowed(unit), narrowed(wire)
        unit_I, wire_I = _leading_max(small), _leading_max(small_wire)
        if small.dim() and small.shape[:-1].numel() > 1:
            self.atoms.unite(small, unit_I)
            unit_I = torch.from_numpy(self.atoms.find(unit_I))
        if small_wire.shape[:-1].numel() > 1:
            self.wires.unite(small_wire, wire_I)
        size = unit.shape[-1]
        fixed = compact((unit == 0) if not constant_along(unit, -1) else unit[..., :1] == 0)
        seen = torch.where(fixed, mix(compact(slot), _FIXED), compact(slot))
        place = torch.arange(seen.shape[:-1].numel()).view(*seen.shape[:-1], 1)
        # The sum forgets the order of its terms, so each one is hashed with its place first: two
        # indices are alike only if they hold the same slots at the same places.
        slot_I = mix(seen, place).flatten(0, -2).sum(0) if seen.dim() > 1 else seen
        zero = compact(unit == 0) & compact(slot == ZERO)
        slot_I = torch.where(zero.flatten(0, -2).all(0) if zero.dim() > 1 else zero, ZERO, slot_I)
        self._pin_mixed(unit, slot, wire_I.expand(size))
        return Labels(unit_I.expand(size), slot_I.expand(size), wire=wire_I.expand(size))

    def _pin_mixed(self, unit: torch.Tensor, slot: torch.Tensor, wire_I: torch.Tensor) -> None:
        """Pin the scale where a unit shares its index with constants other than zero."""
        foreign = (unit == 0) & (slot != ZERO)
        mixed_I = foreign.flatten(0, -2).any(0) if unit.dim() > 1 else foreign
        if mixed_I.any():
            self.pin_wires(wire_I[mixed_I])


def _leading_max(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(0, -2).amax(0) if tensor.dim() > 1 else tensor


def constant_labels(value: torch.Tensor) -> Labels:
    """Return labels of numbers that are no weights: equal numbers are alike."""
    value = value.detach()
    bits = (
        torch.view_as_real(value).sum(-1) if value.is_complex() else value
    ).double()  # bool and integers, too
    bits = torch.where(bits == 0, 0.0, bits)  # -0 is 0
    zero = torch.zeros((), dtype=torch.int64).expand(value.shape)
    return Labels(zero, mix(bits.contiguous().view(torch.int64), _FIXED), wire=zero)


ZERO = mix(torch.zeros((), dtype=torch.int64), _FIXED)
"""Slot of the constant 0."""
