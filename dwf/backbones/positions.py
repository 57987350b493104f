"""Embeddings of a token's position: its number in the network, its layer, its unit.

Shape suffixes: B sequences of a batch, W tokens of a sequence, E width of the embedding,
F sines and cosines.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from dwf.backbones.linear import Linear

# As in Vaswani et al., Attention is all you need (arXiv 1706.03762), section 3.5.
_LONGEST_PERIOD = 10_000.0


class LearnedPositions(nn.Module):
    """Three learned tables of half the width: number and layer are added, the unit is joined.

    Source: SANE (arXiv 2406.09997), section 3.

    Args:
        width: E, even.
        bounds: rows of the tables: one more than the largest number, layer and unit.
    """

    def __init__(self, width: int, bounds: Sequence[int]):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width // 2) for rows in bounds)

    def forward(self, positions_BW3: torch.Tensor) -> torch.Tensor:
        """Return the embedding_BWE of positions (int64)."""
        token, layer, unit = (
            table(part) for table, part in zip(self.tables, positions_BW3.unbind(-1), strict=True)
        )
        return torch.cat([token + layer, unit], dim=-1)


class SinusoidalPositions(nn.Module):
    """Sines and cosines of the three numbers under one linear map: no position is out of range.

    Each number has `width // 2` of them, of geometrically spaced periods, 2 pi to 10,000 x 2 pi.

    Args:
        width: E, a multiple of 4.
    """

    def __init__(self, width: int):
        super().__init__()
        steps = torch.arange(width // 4) / max(width // 4 - 1, 1)
        # No buffer: that would be rounded with a module in bf16, and far positions lost.
        self.frequencies_F = torch.exp(-math.log(_LONGEST_PERIOD) * steps)
        self.mix = Linear(3 * 2 * (width // 4), width, bias=False)

    def forward(self, positions_BW3: torch.Tensor) -> torch.Tensor:
        """Return the embedding_BWE of positions (int64)."""
        frequencies_F = self.frequencies_F.to(positions_BW3.device)
        angles = positions_BW3.float().unsqueeze(-1) * frequencies_F
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # [B, W, 3, 2 F]
        return self.mix(waves.flatten(-2).to(self.mix.weight.dtype))
