"""Codes: what a codec makes of networks and a density learns the distribution of.

Shape suffixes: N networks, K numbers of a code, T tokens of a network, C numbers of a token,
A architectures.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dwf.backbones.shape import Sections, Shape
from dwf.errors import ShapeMismatch
from dwf.files import read_array
from dwf.ranks import world
from dwf.run_folder import replacing

MOST_HELD = 2**28
"""Bytes of codes that `gather` holds in memory where it may write to a disk."""


@dataclass(frozen=True, eq=False)
class CodeShape(Shape):
    """Shape of all codes of a codec, and the networks they stand for; see `vectors`, `sequences`.

    Sequences may be of several architectures ("mixed"): A masks then say which slots of one common
    sequence each has. Size, sections and vectors are those of the union.
    """

    layouts: tuple[str, ...] = ()
    """Digests of the layouts of the networks that codes stand for: one, or A if mixed."""
    positions: torch.Tensor | None = None
    """int64, of sequences: shape [T, 3], (token, layer, unit)."""
    mask: torch.Tensor | None = None
    """bool, of sequences: which numbers stand for a weight, shape [T, C], or [A, T, C] if mixed."""

    @classmethod
    def vectors(cls, layout: str, size: int) -> "CodeShape":
        """Return the shape of vectors of `size` numbers, for networks of a layout's digest."""
        return cls(size, layouts=(layout,))

    @classmethod
    def sequences(
        cls, layouts: Sequence[str], positions: torch.Tensor, *, mask: torch.Tensor
    ) -> "CodeShape":
        """Return the shape of sequences.

        A layer's tokens stand together in a section, or in several where they differ in their
        numbers.

        Args:
            layouts: digests of the networks' layouts.
            positions: see the class.
            mask: see the class; of three axes, codes are mixed.
        """
        union_TC = _union(mask)
        order_T = _order(positions, union_TC)
        kinds = torch.stack([positions[:, 1], union_TC.sum(1)], 1)[order_T].tolist()
        runs = ((width, len(list(run))) for (_, width), run in itertools.groupby(kinds))
        sections: Sections = tuple((count, width) for width, count in runs)
        return cls(
            int(union_TC.sum()), sections, layouts=tuple(layouts), positions=positions, mask=mask
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, CodeShape)
            and (self.size, self.layouts) == (other.size, other.layouts)
            and self.sections == other.sections
            and _are_equal(self.positions, other.positions)
            and _are_equal(self.mask, other.mask)
        )

    def __hash__(self) -> int:
        return hash((self.size, self.sections, self.layouts))

    @property
    def layout(self) -> str:
        """Digest of the first layout."""
        return self.layouts[0]

    @property
    def is_mixed(self) -> bool:
        """Whether codes are of several architectures, each with a mask of its own."""
        return self.mask is not None and self.mask.dim() == 3

    @property
    def of_code(self) -> tuple[int, ...]:
        """Axes of one code's values: (K,) or (T, C)."""
        return (self.size,) if self.mask is None else tuple(self.mask.shape[-2:])

    @property
    def union_TC(self) -> torch.Tensor:  # noqa: N802
        """Numbers of a sequence that stand for a weight of any architecture, bool."""
        return _union(self.mask)

    @property
    def present_AK(self) -> torch.Tensor | None:  # noqa: N802
        """If mixed, which numbers of `Codes.flatten` each architecture has, bool; else None."""
        return self.mask.flatten(1)[:, self.slots()] if self.is_mixed else None

    @property
    def num_layers(self) -> int:
        """Layers of the networks that have tokens; 0 without tokens."""
        return 0 if self.positions is None else len(set(self.positions[:, 1].tolist()))

    def places(self) -> list[tuple[int, int, int]]:
        """Return (layer, unit, place) of each token, in the order of the sections; see the base."""
        if self.positions is None:
            return []
        seen: dict[tuple[int, int], int] = {}
        number = {layer: i for i, layer in enumerate(sorted(set(self.positions[:, 1].tolist())))}
        places = []
        for _, layer, unit in self.positions.tolist():
            place = seen[layer, unit] = seen.get((layer, unit), -1) + 1
            places.append((number[layer], unit, place))
        return [places[i] for i in _order(self.positions, self.union_TC).tolist()]

    def slots(self) -> torch.Tensor:
        """Return which slots of a sequence `Codes.flatten` takes, in that order, int64_K."""
        union_TC = self.union_TC
        order_T = _order(self.positions, union_TC)
        slots_TC = torch.arange(union_TC.numel()).view(union_TC.shape)
        return slots_TC[order_T][union_TC[order_T]]

    def empty(self) -> "Codes":
        """Return codes of no network."""
        none = torch.empty(0, dtype=torch.int64)
        return Codes(torch.empty(0, *self.of_code), self, kind_N=none if self.is_mixed else None)

    def fill(self, numbers_NK: torch.Tensor, kind_N: torch.Tensor | None = None) -> "Codes":
        """Return codes of this shape; the inverse of `Codes.flatten`.

        Args:
            numbers_NK: what `flatten` is to return.
            kind_N: if mixed, which architecture each is of. Numbers that the architecture does not
                have become 0.
        """
        if self.mask is None:
            return Codes(numbers_NK, self)
        values_NTC = numbers_NK.new_zeros(len(numbers_NK), *self.of_code)
        values_NTC.flatten(1)[:, self.slots()] = numbers_NK
        if not self.is_mixed:
            return Codes(values_NTC, self)
        filled = Codes(values_NTC, self, kind_N=kind_N)
        values_NTC.masked_fill_(~self.mask[kind_N].to(values_NTC.device), 0)
        return filled


def _union(mask: torch.Tensor) -> torch.Tensor:
    return mask.any(0) if mask.dim() == 3 else mask


def _order(positions: torch.Tensor, union_TC: torch.Tensor) -> torch.Tensor:
    """Return the tokens layer after layer, and in each those of most numbers first, int64_T."""
    width = union_TC.shape[1]
    fewer_T = width - union_TC.sum(1)
    return (positions[:, 1] * (width + 1) + fewer_T).argsort(stable=True)


def _are_equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


@dataclass(frozen=True)
class Codes:
    """Codes of N networks: vectors, or sequences of tokens; what a network does not have is 0."""

    values: torch.Tensor
    """float32, shape [N, K] or [N, T, C]."""
    shape: CodeShape
    """Shape of each code."""
    kind_N: torch.Tensor | None = None
    """int64, if mixed: the number of each network's layout among `shape.layouts`, shape [N]."""
    is_mapped: bool = False
    """Whether `values` lie on a disk; rows that are taken are read from there."""

    def __post_init__(self) -> None:
        if tuple(self.values.shape[1:]) != self.shape.of_code:
            raise ShapeMismatch(
                f"codes of shape {list(self.values.shape)} are not vectors [N, K], nor sequences "
                f"[N, T, C], of {' x '.join(map(str, self.shape.of_code))} numbers: take codes as "
                "a codec makes them"
            )
        num_kinds = len(self.kind_N) if self.kind_N is not None else 0
        if self.shape.is_mixed and num_kinds != len(self.values):
            raise ShapeMismatch(
                f"{len(self.values)} codes of several architectures with {num_kinds} numbers of "
                "their architectures, one for each expected: cut codes with `take`, fill them with "
                "`CodeShape.fill(numbers, kind_N)`"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def present_NK(self) -> torch.Tensor | None:  # noqa: N802
        """If mixed, which numbers of `flatten` each network has, bool; None: all."""
        return self.shape.present_AK[self.kind_N] if self.shape.is_mixed else None

    def take(self, rows: slice | torch.Tensor) -> "Codes":
        """Return the codes of some networks; a slice of mapped ones stays mapped."""
        kind_N = None if self.kind_N is None else self.kind_N[rows]
        is_mapped = self.is_mapped and isinstance(rows, slice)
        return Codes(self.values[rows], self.shape, kind_N=kind_N, is_mapped=is_mapped)

    def flatten(self) -> torch.Tensor:
        """Return the numbers that stand for weights, section after section, shape [N, K].

        If mixed, 0 where a network has none.
        """
        if self.shape.mask is None:
            return self.values
        if self.shape.union_TC.all():  # a view: mapped codes stay on disk
            return self.values.flatten(1)
        return self.values.flatten(1)[:, self.shape.slots()]

    def columns(self, width: int) -> Iterator[torch.Tensor]:
        """Yield the columns of `flatten`, `width` at a time, in order; no more are held."""
        values_NS, mask = self.values.flatten(1), self.shape.mask
        slots_K = None if mask is None or self.shape.union_TC.all() else self.shape.slots()
        for start in range(0, self.shape.size, width):
            part = slice(start, start + width)
            yield values_NS[:, part if slots_K is None else slots_K[part]]


def tokens_of(numbers_NK: torch.Tensor, sections: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """Return the tokens of each section of `Shape.sections`, each [N, tokens, numbers], as views.

    Args:
        numbers_NK: as `Codes.flatten` returns them.
        sections: tokens and numbers of each; what may follow takes no part.
    """
    parts = numbers_NK.split([count * size for count, size, *_ in sections], dim=1)
    return [part.unflatten(1, section[:2]) for part, section in zip(parts, sections, strict=True)]


Judge = Callable[[Codes], dict[str, float]]
"""Function that says how good codes are, as numbers by name; ranks call it together."""


def gather(blocks: Iterable[Codes], count: int, *, file: Path | None = None) -> Codes:
    """Return the codes of blocks, one after the other, as one.

    Args:
        blocks: at least one; all of one layout, or all of the same several.
        count: N, all blocks together.
        file: an `.npy` for codes of more than `MOST_HELD` bytes, which are then mapped and not
            held; ranks map one file. Default: all are held.

    Raises:
        ShapeMismatch: the blocks are of several layouts, and not as a mixed codec makes them.
        OSError: the disk is full.
    """
    blocks = iter(blocks)
    first = next(blocks)
    shape = (count, *first.values.shape[1:])
    kinds: list[torch.Tensor | None] = []
    parts = (_values_like(first, codes, kinds) for codes in itertools.chain([first], blocks))
    is_mapped = file is not None and 4 * math.prod(shape) > MOST_HELD
    if is_mapped:
        _write(parts, shape, file)
        values = map_values(file)
    else:
        values, at = torch.empty(shape), 0
        for part in parts:
            values[at : at + len(part)] = part
            at += len(part)
    kind_N = torch.cat(kinds) if first.shape.is_mixed else None
    return replace(first, values=values, kind_N=kind_N, is_mapped=is_mapped)


def join(parts: Sequence[Codes], file: Path | None = None) -> Codes:
    """Return codes one after the other as one; see `gather`."""
    return gather(parts, sum(map(len, parts)), file=file)


def pick(codes: Codes, rows: torch.Tensor, *, file: Path) -> Codes:
    """Return the codes of some networks, which are held, or mapped where they are too many.

    Args:
        codes: to take them of.
        rows: their numbers, int64.
        file: see `gather`.
    """
    size = max(1, MOST_HELD // (4 * math.prod(codes.shape.of_code)))
    parts = rows.split(size)
    if len(parts) < 2:
        return codes.take(rows)
    return gather(map(codes.take, parts), len(rows), file=file)


def map_values(file: Path) -> torch.Tensor:
    """Return the values of an `.npy` of codes, mapped; ranks call it together."""
    # Copy on write: who changes codes in place changes memory, not the file.
    return torch.from_numpy(world().on_all(read_array, file, "c"))


def write_array(
    file: Path, shape: tuple[int, ...], *, parts: Iterable[torch.Tensor], dtype: str = "<f4"
) -> None:
    """Write an array that comes in parts, one after the other, as an `.npy`.

    Written, not mapped: a full disk is then no bus fault.

    Args:
        file: its folder is made if it is missing.
        shape: of the whole.
        parts: of the array's type, with as many numbers together.
        dtype: its type, as NumPy writes it.
    """
    head = {"descr": dtype, "fortran_order": False, "shape": shape}
    with replacing(file) as partial, open(partial, "wb") as opened:
        np.lib.format.write_array_header_1_0(opened, head)
        for part in parts:
            opened.write(part.contiguous().numpy())


def _values_like(first: Codes, codes: Codes, kinds: list[torch.Tensor | None]) -> torch.Tensor:
    is_of = codes.shape.layouts, codes.shape.is_mixed
    if is_of != (first.shape.layouts, first.shape.is_mixed):
        raise ShapeMismatch(
            f"codes of networks of layout {codes.shape.layout} cannot stand with those of layout "
            f"{first.shape.layout}: a density learns from zoos of one architecture, or of several "
            "through a codec that takes them together (codec.kind neurons, with more_zoos); give "
            "the others to the codec alone (codec_zoos)"
        )
    kinds.append(codes.kind_N)
    return codes.values


def _write(parts: Iterable[torch.Tensor], shape: tuple[int, ...], file: Path) -> None:
    """Write codes to a file; ranks call it together, the first writes for all."""
    ours = world()
    if ours.is_first:
        write_array(file, shape, parts=parts)
    else:
        for _ in parts:  # coded together
            pass
    ours.barrier()  # it has its name
