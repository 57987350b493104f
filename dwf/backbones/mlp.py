"""Backbones for vectors.

Times t_B may also have the shape [1], for one time of all vectors: it is then embedded once.

Shape suffixes: B vectors of a batch, K numbers of a vector, T time features, W width.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.config import PublishedMLPConfig, ResidualMLPConfig

_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY = 0.25, 8.0


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Return the layer with weights and bias of zero: what ends in it begins as nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class PublishedMLP(nn.Module):
    """DeepWeightFlow's network: time is embedded once and joined to the input.

    The layer over the joined [x, time] is kept as its two halves: its gradient with respect to x,
    a sixth of all the arithmetic where codes are long, is then never computed.
    """

    def __init__(self, config: PublishedMLPConfig, num_features: int):
        super().__init__()
        hidden, num_time = config.hidden, config.time_features
        self.embed_time = nn.Sequential(
            nn.Linear(1, num_time), nn.GELU(), nn.Linear(num_time, num_time)
        )
        self.enter = nn.Linear(num_features, hidden)
        self.enter_time = nn.Linear(num_time, hidden, bias=False)
        bound = (num_features + num_time) ** -0.5  # torch's, of the joined layer
        for parameter in (self.enter.weight, self.enter.bias, self.enter_time.weight):
            nn.init.uniform_(parameter, -bound, bound)
        self.layers = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, hidden // 2),
            nn.LayerNorm(hidden // 2),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden // 2, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            zeroed(nn.Linear(hidden, num_features)),
        )

    def forward(self, x_BK: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K]."""
        time_BT = self.embed_time(t_B.unsqueeze(1))
        return self.layers(self.enter(x_BK) + self.enter_time(time_BT))


class FourierTime(nn.Module):
    """Time in [0, 1] as sines and cosines of geometrically spaced frequencies.

    Their lowest has a quarter of a period in [0, 1], so that no two times look alike.
    """

    def __init__(self, num_features: int):
        super().__init__()
        octaves = torch.linspace(
            math.log(_LOWEST_FREQUENCY), math.log(_HIGHEST_FREQUENCY), num_features // 2
        )
        self.register_buffer("frequencies", 2 * math.pi * octaves.exp(), persistent=False)

    def forward(self, t_B: torch.Tensor) -> torch.Tensor:
        """Return time_BT."""
        angles = t_B.unsqueeze(1) * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class _Block(nn.Module):
    """A residual block, modulated as in DiT's adaLN-Zero (arXiv 2212.09748)."""

    def __init__(self, config: ResidualMLPConfig):
        super().__init__()
        width, hidden = config.width, config.width * config.expansion
        self.modulate = zeroed(nn.Linear(config.time_features, 3 * width))
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, width),
        )

    def forward(self, x_BW: torch.Tensor, time_BT: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = self.modulate(time_BT).chunk(3, dim=1)
        normed = functional.layer_norm(x_BW, x_BW.shape[1:])
        return x_BW + gate * self.layers(torch.addcmul(shift, normed, 1 + scale))


class ResidualMLP(nn.Module):
    """Residual blocks under adaptive modulation by time; its output begins at zero."""

    def __init__(self, config: ResidualMLPConfig, num_features: int):
        super().__init__()
        width, num_time = config.width, config.time_features
        self.embed_time = nn.Sequential(
            FourierTime(num_time),
            nn.Linear(num_time, num_time),
            nn.SiLU(),
            nn.Linear(num_time, num_time),
            nn.SiLU(),
        )
        self.enter = nn.Linear(num_features, width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.modulate = zeroed(nn.Linear(num_time, 2 * width))
        self.leave = zeroed(nn.Linear(width, num_features))

    def forward(self, x_BK: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K]."""
        time_BT = self.embed_time(t_B)
        hidden_BW = self.enter(x_BK)
        for block in self.blocks:
            hidden_BW = block(hidden_BW, time_BT)
        shift, scale = self.modulate(time_BT).chunk(2, dim=1)
        normed = functional.layer_norm(hidden_BW, hidden_BW.shape[1:])
        return self.leave(torch.addcmul(shift, normed, 1 + scale))
