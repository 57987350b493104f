"""Codes: what a codec makes of networks and a density learns the distribution of.

Shape suffixes: N networks, K numbers of a code, T tokens of a network, C numbers of a token.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Codes:
    """Codes of N networks: vectors, or sequences of tokens."""

    values: torch.Tensor
    """float32, shape [N, K] or [N, T, C]."""
    layout: str
    """Digest of the layout of the networks they stand for."""
    positions: torch.Tensor | None = None
    """int64, of sequences: shape [T, 3], (token, layer, channel)."""
    mask: torch.Tensor | None = None
    """bool, of sequences: which numbers stand for a weight, shape [T, C]."""

    def __len__(self) -> int:
        return len(self.values)
