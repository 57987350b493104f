"""Codes: what a codec makes of networks and a density learns the distribution of.

Shape suffixes: N networks, K numbers of a code, T tokens of a network, C numbers of a token,
A architectures.
"""

import itertools
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dwf.errors import ShapeMismatch

MOST_HELD = 2**28
"""Bytes of codes that `gather` holds in memory where it may write to a disk."""


@dataclass(frozen=True)
class Codes:
    """Codes of N networks: vectors, or sequences of tokens.

    Sequences may be of several architectures ("mixed"): A masks then say which slots of one common
    sequence each has, and `kind_N` which architecture a network is of. Sizes, groups and vectors
    are those of the union; what a network does not have is 0.
    """

    values: torch.Tensor
    """float32, shape [N, K] or [N, T, C]."""
    layout: str
    """Digest of the layout of the networks they stand for; of several, the first."""
    positions: torch.Tensor | None = None
    """int64, of sequences: shape [T, 3], (token, layer, unit)."""
    mask: torch.Tensor | None = None
    """bool, of sequences: which numbers stand for a weight, shape [T, C], or [A, T, C] if mixed."""
    layouts: tuple[str, ...] | None = None
    """If mixed, the digests of the A layouts; else None."""
    kind_N: torch.Tensor | None = None
    """int64, if mixed: the number of each network's layout among `layouts`, shape [N]."""

    def __post_init__(self) -> None:
        if self.kind_N is not None and len(self.kind_N) != len(self.values):
            raise ShapeMismatch(
                f"{len(self.values)} codes of several architectures with {len(self.kind_N)} "
                "numbers of their architectures, one for each expected: cut codes with `take`, "
                "fill them with `refill(numbers, kind_N)`"
            )

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> int:
        """K: how many numbers stand for the weights of one network."""
        return self.values.shape[1] if self.mask is None else int(self.union_TC.sum())

    @property
    def groups(self) -> tuple[tuple[int, int], ...] | None:
        """Groups of the tokens of `flatten`: (tokens, numbers of each), the like ones together.

        That is one group for each layer, or several, where its tokens differ in their numbers. None
        of vectors.
        """
        if self.positions is None or self.mask is None:
            return None
        order_T = self._order()
        kinds = torch.stack([self.positions[:, 1], self.union_TC.sum(1)], 1)[order_T].tolist()
        runs = ((width, len(list(run))) for (_, width), run in itertools.groupby(kinds))
        return tuple((count, width) for width, count in runs)

    @property
    def union_TC(self) -> torch.Tensor:  # noqa: N802
        """Mask of the numbers of sequences that stand for a weight of any architecture, bool."""
        return self.mask if self.layouts is None else self.mask.any(0)

    @property
    def present_AK(self) -> torch.Tensor | None:  # noqa: N802
        """If mixed, which numbers of `flatten` each architecture has, bool; else None."""
        return None if self.layouts is None else self.mask.flatten(1)[:, self._slots()]

    def take(self, rows: slice | torch.Tensor) -> "Codes":
        """Return the codes of some networks."""
        kind_N = None if self.kind_N is None else self.kind_N[rows]
        return replace(self, values=self.values[rows], kind_N=kind_N)

    def flatten(self) -> torch.Tensor:
        """Return the numbers that stand for weights, group after group, shape [N, K].

        If mixed, 0 where a network has none.
        """
        if self.mask is None:
            return self.values
        if self.union_TC.all():  # a view: mapped codes stay on disk
            return self.values.flatten(1)
        return self.values.flatten(1)[:, self._slots()]

    def refill(self, numbers_NK: torch.Tensor, kind_N: torch.Tensor | None = None) -> "Codes":
        """Return codes like these, of other numbers; the inverse of `flatten`.

        Args:
            numbers_NK: what `flatten` is to return.
            kind_N: if mixed, which architecture each is of; default: as here. Numbers that the
                architecture does not have become 0.
        """
        if self.mask is None:
            return replace(self, values=numbers_NK)
        values_NTC = numbers_NK.new_zeros(len(numbers_NK), *self.mask.shape[-2:])
        values_NTC.flatten(1)[:, self._slots()] = numbers_NK
        if self.layouts is None:
            return replace(self, values=values_NTC)
        kind_N = self.kind_N if kind_N is None else kind_N
        filled = replace(self, values=values_NTC, kind_N=kind_N)
        values_NTC.masked_fill_(~self.mask[kind_N].to(values_NTC.device), 0)
        return filled

    def _order(self) -> torch.Tensor:
        """Return the tokens layer after layer, and in each those of most numbers first, int64_T."""
        width = self.mask.shape[-1]
        fewer_T = width - self.union_TC.sum(1)
        return (self.positions[:, 1] * (width + 1) + fewer_T).argsort(stable=True)

    def _slots(self) -> torch.Tensor:
        """Return which slots of a sequence stand for weights, in that order, int64_K."""
        order_T, union_TC = self._order(), self.union_TC
        slots_TC = torch.arange(union_TC.numel()).view(union_TC.shape)
        return slots_TC[order_T][union_TC[order_T]]


def tokens_of(numbers_NK: torch.Tensor, groups: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """Return the tokens of each group of `Codes.groups`, each [N, tokens, numbers], as views.

    Args:
        numbers_NK: as `Codes.flatten` returns them.
        groups: tokens and numbers of each; what may follow takes no part.
    """
    parts = numbers_NK.split([count * size for count, size, *_ in groups], dim=1)
    return [part.unflatten(1, group[:2]) for part, group in zip(parts, groups, strict=True)]


def gather(blocks: Iterable[Codes], count: int, folder: Path | None = None) -> Codes:
    """Return the codes of blocks, one after the other, as one.

    Args:
        blocks: at least one; all of one layout, or all of the same several.
        count: N, all blocks together.
        folder: on whose disk codes of more than `MOST_HELD` bytes are kept, mapped and not held.
            The file has no name: it is gone when they are. Default: all are held.

    Raises:
        ShapeMismatch: the blocks are of several layouts, and not as a mixed codec makes them.
        OSError: the disk is full.
    """
    blocks = iter(blocks)
    first = next(blocks)
    shape = (count, *first.values.shape[1:])
    kinds: list[torch.Tensor | None] = []
    parts = (_values_like(first, codes, kinds) for codes in itertools.chain([first], blocks))
    if folder is None or 4 * math.prod(shape) <= MOST_HELD:
        values, at = torch.empty(shape), 0
        for part in parts:
            values[at : at + len(part)] = part
            at += len(part)
    else:
        values = _mapped(parts, shape, folder)
    return replace(first, values=values, kind_N=torch.cat(kinds) if first.layouts else None)


def join(parts: Sequence[Codes], folder: Path | None = None) -> Codes:
    """Return codes one after the other as one; see `gather`."""
    return gather(parts, sum(map(len, parts)), folder)


def _values_like(first: Codes, codes: Codes, kinds: list[torch.Tensor | None]) -> torch.Tensor:
    if (codes.layout, codes.layouts) != (first.layout, first.layouts):
        raise ShapeMismatch(
            f"codes of networks of layout {codes.layout} cannot stand with those of layout "
            f"{first.layout}: a density learns from zoos of one architecture, or of several "
            "through a codec that takes them together (codec.kind neurons, with more_zoos); give "
            "the others to the codec alone (codec_zoos)"
        )
    kinds.append(codes.kind_N)
    return codes.values


def _mapped(parts: Iterable[torch.Tensor], shape: tuple[int, ...], folder: Path) -> torch.Tensor:
    """Return a mapped tensor. Written, not mapped, at first: a full disk is then no bus fault."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for part in parts:
                file.write(part.contiguous().numpy().data.cast("B"))
            file.flush()
            # Copy on write: who changes codes in place changes memory, not the file.
            return torch.from_numpy(np.memmap(file, np.float32, "c", shape=shape))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from None
