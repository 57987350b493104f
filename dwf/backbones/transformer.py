"""A transformer over token sequences, for which the tokens of one layer are a set.

Tokens enter and leave by one linear map per layer of the coded network, whose bias stands for the
layer; there are no positions of units. So permuting the tokens of a layer permutes what comes out.
As every map is as wide as its layer's tokens, numbers that pad a token never take part.

With `positions` each place of the sequence has a learned vector, added on entry: then the order of
the tokens counts, as it must where the codec ties a token's meaning to its place. With
`last_exchangeable` the tokens of the last layer are a set all the same: of a network with several
hidden layers the order of an earlier one is that of the numbers within the next one's tokens.

Among networks of several architectures, no token attends to one that has no numbers.

Source: blocks as in Peebles and Xie, DiT, ICCV 2023, section 3.2, adaLN-Zero (arXiv:2212.09748).

Shape suffixes: B sequences of a batch, K numbers of a sequence, T its tokens, U tokens of a layer,
W width.
"""

import contextlib
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.config import TransformerConfig
from dwf.backbones.embedding import ConditionEmbedding, modulated, zeroed
from dwf.backbones.gelu import Gelu
from dwf.backbones.linear import Linear
from dwf.backbones.shape import Shape
from dwf.backbones.token_backbone import TokenBackbone

# Deviation of the positions at first: small beside what enters, as in GPT-2 and its descendants.
_POSITION_STD = 0.02


class _Block(nn.Module):
    """Attention and a perceptron: time scales and shifts what enters each, gates what leaves it."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width, hidden = config.width, config.width * config.expansion
        self.heads = config.heads
        self.modulate = zeroed(Linear(width, 6 * width))
        self.project = Linear(width, 3 * width)
        self.join = Linear(width, width)
        self.perceptron = nn.Sequential(Linear(width, hidden), Gelu(), Linear(hidden, width))

    def hidden_layers(self) -> list[nn.Linear]:
        return [self.project, self.join, self.perceptron[0], self.perceptron[2]]

    def forward(
        self, x_BTW: torch.Tensor, time_BW: torch.Tensor, heard: torch.Tensor | None
    ) -> torch.Tensor:
        modulation = self.modulate(time_BW).unsqueeze(1).chunk(6, dim=2)
        shift, scale, gate = modulation[:3]
        x_BTW = torch.addcmul(
            x_BTW, gate, self._attend(modulated(x_BTW, shift, scale=scale), heard)
        )
        shift, scale, gate = modulation[3:]
        return torch.addcmul(x_BTW, gate, self.perceptron(modulated(x_BTW, shift, scale=scale)))

    def _attend(self, x_BTW: torch.Tensor, heard: torch.Tensor | None) -> torch.Tensor:
        heads = self.project(x_BTW).unflatten(2, (3, self.heads, -1)).transpose(1, 3)
        with contextlib.ExitStack() as stack:
            if heads.device.type == "cpu" and heads.dtype == torch.bfloat16:
                # In bf16 torch's attention is fifteen times slower there.
                stack.enter_context(torch.autocast("cpu", enabled=False))
                heads = heads.float()
            query, key, value = heads.unbind(2)  # each [B, heads, T, width of a head], a view
            joined = functional.scaled_dot_product_attention(query, key, value, heard)
        return self.join(joined.transpose(1, 2).flatten(2))


class Transformer(TokenBackbone):
    """Blocks of attention under adaptive modulation by time; its output begins at zero.

    Args:
        config: its settings.
        shape: sections are the layers of the coded network (U tokens, numbers of each), in the
            order in which a sequence holds them; without `positions` tokens of one are
            exchangeable.
        told: numbers of each condition, see `ConditionEmbedding`; none: it is told nothing.
    """

    def __init__(self, config: TransformerConfig, shape: Shape, *, told: Sequence[int] = ()):
        super().__init__(config.width, shape)
        width = config.width
        self.enter = nn.ModuleList(Linear(size, width) for _, size in self.sections)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.modulate = zeroed(Linear(width, 2 * width))
        self.leave = nn.ModuleList(zeroed(Linear(width, size)) for _, size in self.sections)
        self.positions_TW: nn.Parameter | None = None
        if config.positions:
            places_TW = torch.randn(config.num_ordered(self.sections), width)
            self.positions_TW = nn.Parameter(_POSITION_STD * places_TW)
        self.embed_condition = ConditionEmbedding(width, told) if told else None

    def _run(
        self, x_BK: torch.Tensor, time_BW: torch.Tensor, present_BK: torch.Tensor | None
    ) -> torch.Tensor:
        heard = None
        if present_BK is not None:
            tokens = [numbers.any(2) for numbers in self._layers(present_BK)]
            heard = torch.cat(tokens, dim=1)[:, None, None]  # [B, heads, from, to]
        hidden_BTW = self._enter(x_BK)
        for block in self.blocks:
            hidden_BTW = block(hidden_BTW, time_BW, heard)
        shift, scale = self.modulate(time_BW).unsqueeze(1).chunk(2, dim=2)
        layers = modulated(hidden_BTW, shift, scale=scale).split(
            [u for u, _ in self.sections], dim=1
        )
        left = [leave(x_BUW).flatten(1) for x_BUW, leave in zip(layers, self.leave, strict=True)]
        return torch.cat(left, dim=1)

    def _enter(self, x_BK: torch.Tensor) -> torch.Tensor:
        pairs = zip(self._layers(x_BK), self.enter, strict=True)
        hidden_BTW = torch.cat([enter(layer) for layer, enter in pairs], dim=1)
        if self.positions_TW is None:
            return hidden_BTW
        rest = hidden_BTW.shape[1] - len(self.positions_TW)
        return hidden_BTW + functional.pad(self.positions_TW, (0, 0, 0, rest))
