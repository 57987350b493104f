"""Codes: what a codec makes of networks and a density learns the distribution of.

Shape suffixes: N networks, K numbers of a code, T tokens of a network, C numbers of a token.
"""

import itertools
from dataclasses import dataclass, replace

import torch


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
        """Of sequences, for each layer in order: (its tokens, numbers of each). None of vectors."""
        if self.positions is None or self.mask is None:
            return None
        kinds = zip(self.positions[:, 1].tolist(), self.mask.sum(1).tolist(), strict=True)
        runs = ((width, len(list(run))) for (_, width), run in itertools.groupby(kinds))
        return tuple((count, width) for width, count in runs)

    def flatten(self) -> torch.Tensor:
        """Return the numbers that stand for weights, token after token, shape [N, K]."""
        return self.values if self.mask is None else self.values[:, self.mask]

    def refill(self, numbers_NK: torch.Tensor) -> "Codes":
        """Return codes like these, of other numbers; the inverse of `flatten`."""
        if self.mask is None:
            return replace(self, values=numbers_NK)
        values_NTC = numbers_NK.new_zeros(len(numbers_NK), *self.mask.shape)
        values_NTC[:, self.mask] = numbers_NK
        return replace(self, values=values_NTC)
