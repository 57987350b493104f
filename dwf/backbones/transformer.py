"""A transformer over token sequences, for which the tokens of one layer are a set.

Tokens enter and leave by one linear map per layer of the coded network, whose bias stands for the
layer; there are no positions of units. So permuting the tokens of a layer permutes what comes out.
As every map is as wide as its layer's tokens, numbers that pad a token never take part.

With `positions` each place of the sequence has a learned vector, added on entry: then the order of
the tokens counts, as it must where the codec ties a token's meaning to its place. With
`last_exchangeable` the tokens of the last layer are a set all the same: of a network with several
hidden layers the order of an earlier one is that of the numbers within the next one's tokens.

Sequences may be of networks of several architectures, each with a part of the numbers. What one
does not have is taken for 0 and comes out as 0; a token without numbers is heard by no other.

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
from dwf.backbones.embedding import ConditionEmbedding, embed, modulated, time_layers, zeroed
from dwf.backbones.gelu import Gelu
from dwf.backbones.linear import Linear

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

    def forward(
        self, x_BTW: torch.Tensor, time_BW: torch.Tensor, heard: torch.Tensor | None
    ) -> torch.Tensor:
        modulation = self.modulate(time_BW).unsqueeze(1).chunk(6, dim=2)
        shift, scale, gate = modulation[:3]
        x_BTW = torch.addcmul(x_BTW, gate, self._attend(modulated(x_BTW, shift, scale), heard))
        shift, scale, gate = modulation[3:]
        return torch.addcmul(x_BTW, gate, self.perceptron(modulated(x_BTW, shift, scale)))

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


class Transformer(nn.Module):
    """Blocks of attention under adaptive modulation by time; its output begins at zero.

    Args:
        config: its settings.
        groups: for each layer of the coded network (U tokens, numbers of each), in the order in
            which a sequence holds them; without `positions` tokens of one layer are exchangeable.
        conditioned: whether it learns what a condition means.
    """

    def __init__(
        self,
        config: TransformerConfig,
        groups: Sequence[tuple[int, int]],
        conditioned: bool = False,
    ):
        super().__init__()
        width = config.width
        self.groups = tuple(groups)
        self.embed_time = time_layers(width)
        self.enter = nn.ModuleList(Linear(size, width) for _, size in groups)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.modulate = zeroed(Linear(width, 2 * width))
        self.leave = nn.ModuleList(zeroed(Linear(width, size)) for _, size in groups)
        # What is optional is drawn last: all else is initialised as without.
        self.positions_TW: nn.Parameter | None = None
        if config.positions:
            places_TW = torch.randn(config.num_ordered(groups), width)
            self.positions_TW = nn.Parameter(_POSITION_STD * places_TW)
        self.embed_condition = ConditionEmbedding(width) if conditioned else None

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Return the matrices between hidden features, for `training.optimizer` muon."""
        layers = ((b.project, b.join, b.perceptron[0], b.perceptron[2]) for b in self.blocks)
        return [layer.weight for block in layers for layer in block]

    def forward(
        self,
        x_BK: torch.Tensor,
        t_B: torch.Tensor,
        condition_B: torch.Tensor | None = None,
        present_BK: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K].

        Args:
            x_BK: sequences, token after token.
            t_B: their times, or, of shape [1], the one time of all.
            condition_B: standardised conditions, NaN for none; or, of shape [1], that of all.
            present_BK: bool, which numbers each sequence has; None: all.
        """
        time_BW = embed(self.embed_time, self.embed_condition, t_B, condition_B)
        heard = None
        if present_BK is not None:
            x_BK = x_BK * present_BK
            tokens = [numbers.any(2) for numbers in self._layers(present_BK)]
            heard = torch.cat(tokens, dim=1)[:, None, None]  # [B, heads, from, to]
        hidden_BTW = self._enter(x_BK)
        for block in self.blocks:
            hidden_BTW = block(hidden_BTW, time_BW, heard)
        shift, scale = self.modulate(time_BW).unsqueeze(1).chunk(2, dim=2)
        layers = modulated(hidden_BTW, shift, scale).split([u for u, _ in self.groups], dim=1)
        left = [leave(x_BUW).flatten(1) for x_BUW, leave in zip(layers, self.leave, strict=True)]
        out_BK = torch.cat(left, dim=1)
        return out_BK if present_BK is None else out_BK * present_BK

    def _layers(self, x_BK: torch.Tensor) -> list[torch.Tensor]:
        """Return the tokens of each layer, each [B, U, numbers]."""
        layers = x_BK.split([count * size for count, size in self.groups], dim=1)
        return [layer.unflatten(1, group) for layer, group in zip(layers, self.groups, strict=True)]

    def _enter(self, x_BK: torch.Tensor) -> torch.Tensor:
        pairs = zip(self._layers(x_BK), self.enter, strict=True)
        hidden_BTW = torch.cat([enter(layer) for layer, enter in pairs], dim=1)
        if self.positions_TW is None:
            return hidden_BTW
        rest = hidden_BTW.shape[1] - len(self.positions_TW)
        return hidden_BTW + functional.pad(self.positions_TW, (0, 0, 0, rest))
