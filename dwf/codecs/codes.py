"""Codes: what a codec makes of networks and a density learns the distribution of.

Shape suffixes: N networks, K numbers of a code, T tokens of a network, C numbers of a token.
"""

import itertools
import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dwf.errors import ShapeMismatch

MOST_HELD = 2**28
"""Bytes of codes that `gather` holds in memory where it may write to a disk."""


@dataclass(frozen=True)
class Codes:
    """Codes of N networks: vectors, or sequences of tokens."""

    values: torch.Tensor
    """float32, shape [N, K] or [N, T, C]."""
    layout: str
    """Digest of the layout of the networks they stand for."""
    positions: torch.Tensor | None = None
    """int64, of sequences: shape [T, 3], (token, layer, unit)."""
    mask: torch.Tensor | None = None
    """bool, of sequences: which numbers stand for a weight, shape [T, C]."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> int:
        """K: how many numbers stand for the weights of one network."""
        return self.values.shape[1] if self.mask is None else int(self.mask.sum())

    @property
    def groups(self) -> tuple[tuple[int, int], ...] | None:
        """Of sequences, what `flatten` returns: (tokens, numbers of each), the like ones together.

        That is one group for each layer, or several, where its tokens differ in their numbers. None
        of vectors.
        """
        if self.positions is None or self.mask is None:
            return None
        order_T = self._order()
        kinds = torch.stack([self.positions[:, 1], self.mask.sum(1)], 1)[order_T].tolist()
        runs = ((width, len(list(run))) for (_, width), run in itertools.groupby(kinds))
        return tuple((count, width) for width, count in runs)

    def flatten(self) -> torch.Tensor:
        """Return the numbers that stand for weights, group after group, shape [N, K]."""
        if self.mask is None:
            return self.values
        if self.mask.all():  # a view: mapped codes stay on disk
            return self.values.flatten(1)
        return self.values.flatten(1)[:, self._slots()]

    def refill(self, numbers_NK: torch.Tensor) -> "Codes":
        """Return codes like these, of other numbers; the inverse of `flatten`."""
        if self.mask is None:
            return replace(self, values=numbers_NK)
        values_NTC = numbers_NK.new_zeros(len(numbers_NK), *self.mask.shape)
        values_NTC.flatten(1)[:, self._slots()] = numbers_NK
        return replace(self, values=values_NTC)

    def _order(self) -> torch.Tensor:
        """Return the tokens layer after layer, and in each those of most numbers first, int64_T."""
        fewer_T = self.mask.shape[1] - self.mask.sum(1)
        return (self.positions[:, 1] * (self.mask.shape[1] + 1) + fewer_T).argsort(stable=True)

    def _slots(self) -> torch.Tensor:
        """Return which slots of a sequence stand for weights, in that order, int64_K."""
        order_T = self._order()
        slots_TC = torch.arange(self.mask.numel()).view(self.mask.shape)
        return slots_TC[order_T][self.mask[order_T]]


def gather(blocks: Iterable[Codes], count: int, folder: Path | None = None) -> Codes:
    """Return the codes of blocks, one after the other, as one.

    Args:
        blocks: at least one; all of one layout.
        count: N, all blocks together.
        folder: on whose disk codes of more than `MOST_HELD` bytes are kept, mapped and not held.
            The file has no name: it is gone when they are. Default: all are held.

    Raises:
        ShapeMismatch: the blocks are of several layouts.
        OSError: the disk is full.
    """
    blocks = iter(blocks)
    first = next(blocks)
    shape = (count, *first.values.shape[1:])
    parts = (_values_like(first, codes) for codes in itertools.chain([first], blocks))
    if folder is None or 4 * math.prod(shape) <= MOST_HELD:
        values, at = torch.empty(shape), 0
        for part in parts:
            values[at : at + len(part)] = part
            at += len(part)
    else:
        values = _mapped(parts, shape, folder)
    return replace(first, values=values)


def _values_like(first: Codes, codes: Codes) -> torch.Tensor:
    if codes.layout != first.layout:
        raise ShapeMismatch(
            f"codes of networks of layout {codes.layout} cannot stand with those of layout "
            f"{first.layout}: a density learns from zoos of one architecture; give the others to "
            "the codec alone (codec_zoos)"
        )
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
