"""A transformer over token sequences, for which the tokens of one layer are a set.

Tokens enter and leave by one linear map per layer of the coded network, whose bias stands for the
layer; there are no positions of units. So permuting the tokens of a layer permutes what comes out.
As every map is as wide as its layer's tokens, numbers that pad a token never take part.

With `positions` each place of the sequence has a learned vector, added on entry: then the order of
the tokens counts, as it must where the codec ties a token's meaning to its place.

Source: blocks as in Peebles and Xie, DiT, ICCV 2023, section 3.2, adaLN-Zero (arXiv:2212.09748).

Shape suffixes: B sequences of a batch, K numbers of a sequence, T its tokens, U tokens of a layer,
W width.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.config import TransformerConfig
from dwf.backbones.mlp import FourierTime, zeroed

# Deviation of the positions at first: small beside what enters, as in GPT-2 and its descendants.
_POSITION_STD = 0.02


class _Block(nn.Module):
    """Attention and a perceptron: time scales and shifts what enters each, gates what leaves it."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width, hidden = config.width, config.width * config.expansion
        self.heads = config.heads
        self.modulate = zeroed(nn.Linear(width, 6 * width))
        self.project = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
        )

    def forward(self, x_BTW: torch.Tensor, time_BW: torch.Tensor) -> torch.Tensor:
        modulation = self.modulate(time_BW).unsqueeze(1).chunk(6, dim=2)
        shift, scale, gate = modulation[:3]
        x_BTW = torch.addcmul(x_BTW, gate, self._attend(_modulated(x_BTW, shift, scale)))
        shift, scale, gate = modulation[3:]
        return torch.addcmul(x_BTW, gate, self.perceptron(_modulated(x_BTW, shift, scale)))

    def _attend(self, x_BTW: torch.Tensor) -> torch.Tensor:
        heads = self.project(x_BTW).unflatten(2, (3, self.heads, -1)).transpose(1, 3)
        query, key, value = heads.unbind(2)  # each [B, heads, T, width of a head], a view
        joined = functional.scaled_dot_product_attention(query, key, value)
        return self.join(joined.transpose(1, 2).flatten(2))


def _modulated(x_BTW: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift, functional.layer_norm(x_BTW, x_BTW.shape[2:]), 1 + scale)


class Transformer(nn.Module):
    """Blocks of attention under adaptive modulation by time; its output begins at zero.

    Args:
        config: its settings.
        groups: for each layer of the coded network (U tokens, numbers of each), in the order in
            which a sequence holds them; without `positions` tokens of one layer are exchangeable.
    """

    def __init__(self, config: TransformerConfig, groups: Sequence[tuple[int, int]]):
        super().__init__()
        width = config.width
        self.groups = tuple(groups)
        self.embed_time = nn.Sequential(
            FourierTime(width),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
        )
        self.enter = nn.ModuleList(nn.Linear(size, width) for _, size in groups)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.modulate = zeroed(nn.Linear(width, 2 * width))
        self.leave = nn.ModuleList(zeroed(nn.Linear(width, size)) for _, size in groups)
        self.positions_TW: nn.Parameter | None = None
        if config.positions:  # drawn last: all else is initialised as without
            places_TW = torch.randn(sum(count for count, _ in groups), width)
            self.positions_TW = nn.Parameter(_POSITION_STD * places_TW)

    def forward(self, x_BK: torch.Tensor, t_B: torch.Tensor) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K].

        Args:
            x_BK: sequences, token after token.
            t_B: their times, or, of shape [1], the one time of all.
        """
        time_BW = self.embed_time(t_B)
        layers = x_BK.split([count * size for count, size in self.groups], dim=1)
        entered = [
            enter(layer.unflatten(1, group))
            for layer, group, enter in zip(layers, self.groups, self.enter, strict=True)
        ]
        hidden_BTW = torch.cat(entered, dim=1)
        if self.positions_TW is not None:
            hidden_BTW = hidden_BTW + self.positions_TW
        for block in self.blocks:
            hidden_BTW = block(hidden_BTW, time_BW)
        shift, scale = self.modulate(time_BW).unsqueeze(1).chunk(2, dim=2)
        layers = _modulated(hidden_BTW, shift, scale).split([u for u, _ in self.groups], dim=1)
        left = [leave(x_BUW).flatten(1) for x_BUW, leave in zip(layers, self.leave, strict=True)]
        return torch.cat(left, dim=1)
