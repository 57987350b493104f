"""The base of transformers over token sequences: how tokens enter, leave, and are modulated.

A kind says who hears whom. Tokens enter and leave by one linear map per section of the sequence,
whose bias stands for it. As every map is as wide as its section's tokens, numbers that pad a token
never take part.

Source: blocks as in Peebles and Xie, DiT, ICCV 2023, section 3.2, adaLN-Zero (arXiv:2212.09748).

Shape suffixes: B sequences of a batch, K numbers of a sequence, T its tokens, U tokens of a
section, W width.
"""

from typing import Generic, TypeVar

import torch
from torch import nn

from dwf.backbones.config import LongTransformerConfig, TransformerConfig
from dwf.backbones.embedding import modulated, zeroed
from dwf.backbones.gelu import Gelu
from dwf.backbones.linear import Linear
from dwf.backbones.shape import Shape
from dwf.backbones.token_backbone import TokenBackbone

# Small beside what enters, as in GPT-2 and its descendants.
POSITION_STD = 0.02
"""Deviation of learned positions at first."""

Heard = TypeVar("Heard")
"""Whatever a kind of block must know of who hears whom."""


class AttentionBlock(nn.Module, Generic[Heard]):
    """Attention and a perceptron: time scales and shifts what enters each, gates what leaves it.

    Args:
        config: of the transformer.
    """

    def __init__(self, config: TransformerConfig | LongTransformerConfig):
        super().__init__()
        width, hidden = config.width, config.width * config.expansion
        self.heads = config.heads
        self.modulate = zeroed(Linear(width, 6 * width))
        self.project = Linear(width, 3 * width)
        self.join = Linear(width, width)
        self.perceptron = nn.Sequential(Linear(width, hidden), Gelu(), Linear(hidden, width))

    def hidden_layers(self) -> list[nn.Linear]:
        """Return the linear maps whose matrices Muon updates."""
        return [self.project, self.join, self.perceptron[0], self.perceptron[2]]

    def forward(self, x_BTW: torch.Tensor, time_BW: torch.Tensor, heard: Heard) -> torch.Tensor:
        """Return tokens [B, T, W].

        Args:
            x_BTW: tokens.
            time_BW: vectors of time and condition, or [1, W] where all share one.
            heard: who hears whom.
        """
        modulation = self.modulate(time_BW).unsqueeze(1).chunk(6, dim=2)
        shift, scale, gate = modulation[:3]
        x_BTW = torch.addcmul(
            x_BTW, gate, self._attend(modulated(x_BTW, shift, scale=scale), heard)
        )
        shift, scale, gate = modulation[3:]
        return torch.addcmul(x_BTW, gate, self.perceptron(modulated(x_BTW, shift, scale=scale)))

    def _attend(self, x_BTW: torch.Tensor, heard: Heard) -> torch.Tensor:
        heads = self.project(x_BTW).unflatten(2, (3, self.heads, -1))
        return self.join(self.hear(heads, heard))

    def hear(self, heads: torch.Tensor, heard: Heard) -> torch.Tensor:
        """Return what each token hears, [B, T, W].

        Args:
            heads: queries, keys and values, [B, T, 3, heads, width of a head].
            heard: who hears whom.
        """
        raise NotImplementedError


class AttentionBackbone(TokenBackbone):
    """Base of transformers; a kind gives `_place` and `_through`. The output begins at zero.

    Args:
        config: its settings.
        shape: of the sequences.
        block: class of its blocks.
    """

    def __init__(
        self,
        config: TransformerConfig | LongTransformerConfig,
        shape: Shape,
        *,
        block: type[AttentionBlock],
    ):
        super().__init__(config.width, shape)
        width = config.width
        self.enter = nn.ModuleList(Linear(size, width) for _, size in self.sections)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.depth))
        self.modulate = zeroed(Linear(width, 2 * width))
        self.leave = nn.ModuleList(zeroed(Linear(width, size)) for _, size in self.sections)

    def _place(self, hidden_BTW: torch.Tensor) -> torch.Tensor:
        """Return tokens that are told their places."""
        raise NotImplementedError

    def _through(
        self, hidden_BTW: torch.Tensor, time_BW: torch.Tensor, there_BT: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the tokens, [B, T, W], behind all blocks.

        Args:
            hidden_BTW: tokens that entered.
            time_BW: vectors of time and condition, or [1, W] where all share one.
            there_BT: which tokens have numbers; None: all.
        """
        raise NotImplementedError

    def _run(
        self, x_BK: torch.Tensor, time_BW: torch.Tensor, present_BK: torch.Tensor | None
    ) -> torch.Tensor:
        there_BT = None
        if present_BK is not None:
            tokens = [numbers.any(2) for numbers in self._layers(present_BK)]
            there_BT = torch.cat(tokens, dim=1)
        pairs = zip(self._layers(x_BK), self.enter, strict=True)
        hidden_BTW = self._place(torch.cat([enter(layer) for layer, enter in pairs], dim=1))
        hidden_BTW = self._through(hidden_BTW, time_BW, there_BT)
        shift, scale = self.modulate(time_BW).unsqueeze(1).chunk(2, dim=2)
        layers = modulated(hidden_BTW, shift, scale=scale).split(
            [u for u, _ in self.sections], dim=1
        )
        left = [leave(x_BUW).flatten(1) for x_BUW, leave in zip(layers, self.leave, strict=True)]
        return torch.cat(left, dim=1)
