"""A transformer over long token sequences, at a cost that is linear in the number of tokens.

A token hears its window, the tokens beside it in the sequence whatever their layer, and all global
tokens: learned ones, some for each layer of the coded network, which hear all tokens and each
other. Every second block moves its windows on by half of one, so that what one window says reaches
the next. A token's place (layer, unit, number within the unit) is the sum of three learned vectors.
With a window as long as the sequence and no global token it is `transformer.py` with positions.

Attention is two calls: windows side by side, each with the global tokens behind its own, and the
global tokens over everything.

Source: windows and global tokens as in Longformer (arXiv 2004.05150), section 3.1; windows that do
not overlap and move as in Swin (arXiv 2103.14030), section 3.2.

Shape suffixes: B sequences of a batch, T tokens of a sequence, G global tokens, W width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dwf.backbones.attention import POSITION_STD, AttentionBackbone, AttentionBlock
from dwf.backbones.config import LongTransformerConfig
from dwf.backbones.dot_product import attend
from dwf.backbones.embedding import ConditionEmbedding
from dwf.backbones.shape import Shape


class _Windows(NamedTuple):
    """Where windows lie, and which tokens are heard in them."""

    length: int
    """Tokens of a window."""
    before: int
    """Empty places before the first token."""
    after: int
    """Empty places after the last token."""
    num_global: int
    """G; they stand behind the T tokens."""
    in_windows: torch.Tensor | None
    """Mask [B or 1 times windows, 1, 1, tokens of a window + G]; None: all are heard."""
    by_global: torch.Tensor | None
    """Mask [B, 1, 1, T + G]; None: all are heard."""


class _Block(AttentionBlock[_Windows]):
    """Tokens hear their window and the global tokens, these hear all."""

    def hear(self, heads: torch.Tensor, heard: _Windows) -> torch.Tensor:
        num = heads.shape[1] - heard.num_global
        tokens, others = heads[:, :num], heads[:, num:]
        joined = _hear_windows(tokens, others, heard)
        if not heard.num_global:
            return joined
        query, key, value = others[:, :, 0], heads[:, :, 1], heads[:, :, 2]
        return torch.cat(
            [joined, attend(query, key, value_BTHD=value, heard=heard.by_global).flatten(2)], dim=1
        )


def _hear_windows(tokens: torch.Tensor, others: torch.Tensor, heard: _Windows) -> torch.Tensor:
    """Return what tokens hear, [B, T, W]; both arguments as of `AttentionBlock.hear`."""
    num_sequences, num = tokens.shape[:2]
    if heard.before or heard.after:
        tokens = functional.pad(tokens, (0, 0) * 3 + (heard.before, heard.after))
    windows = tokens.unflatten(1, (-1, heard.length))
    query, key, value = windows.unbind(3)  # each [B, windows, length, heads, width of a head]
    if heard.num_global:
        # Behind each window's tokens, the global ones.
        beside = others.unsqueeze(1).expand(-1, windows.shape[1], -1, -1, -1, -1)
        key, value = (
            torch.cat([own, beside[:, :, :, i]], dim=2) for i, own in ((1, key), (2, value))
        )
    query, key, value = (part.flatten(0, 1) for part in (query, key, value))
    mask = heard.in_windows
    if mask is not None and len(mask) < len(query):  # one for all sequences
        mask = mask.repeat(num_sequences, 1, 1, 1)
    joined = attend(query, key, value_BTHD=value, heard=mask)
    joined_BTW = joined.unflatten(0, (num_sequences, -1)).flatten(1, 2).flatten(2)
    return joined_BTW[:, heard.before : heard.before + num]


class LongTransformer(AttentionBackbone):
    """Blocks of attention in windows and by global tokens; its output begins at zero.

    Args:
        config: its settings.
        shape: tells the place of each token, and how many layers have tokens.
        told: numbers of each condition, see `ConditionEmbedding`; none: it is told nothing.

    Raises:
        ConfigError: a window is longer than the sequence.
    """

    def __init__(self, config: LongTransformerConfig, shape: Shape, *, told: Sequence[int] = ()):
        config.check_window(shape)
        super().__init__(config, shape, block=_Block)
        self.window, self.checkpointing = config.window, config.checkpointing
        places = shape.places()
        self.register_buffer("places_3T", torch.tensor(places).T.contiguous(), persistent=False)
        rows = [max(part) + 1 for part in zip(*places, strict=True)]
        self.positions = nn.ModuleList(nn.Embedding(num, config.width) for num in rows)
        for table in self.positions:
            nn.init.normal_(table.weight, std=POSITION_STD)
        self.global_GW: nn.Parameter | None = None
        if config.global_tokens:
            learnt_GW = torch.randn(config.num_global(shape), config.width)
            self.global_GW = nn.Parameter(POSITION_STD * learnt_GW)
        self.embed_condition = ConditionEmbedding(config.width, told) if told else None

    def _place(self, hidden_BTW: torch.Tensor) -> torch.Tensor:
        layer_TW, unit_TW, place_TW = (
            table(part_T) for table, part_T in zip(self.positions, self.places_3T, strict=True)
        )
        return hidden_BTW + (layer_TW + unit_TW + place_TW)

    def _through(
        self, hidden_BTW: torch.Tensor, time_BW: torch.Tensor, there_BT: torch.Tensor | None
    ) -> torch.Tensor:
        num_sequences, num = hidden_BTW.shape[:2]
        moves = (0, self.window // 2 if self.window < num else 0)
        windows = [self._windows(num, moved, there_BT, hidden_BTW.device) for moved in moves]
        if self.global_GW is not None:
            # Each is of a layer, and begins beside that layer's tokens.
            layer_LW = self.positions[0].weight
            of_layer_GW = layer_LW.repeat_interleave(len(self.global_GW) // len(layer_LW), dim=0)
            global_BGW = (self.global_GW + of_layer_GW).expand(num_sequences, -1, -1)
            hidden_BTW = torch.cat([hidden_BTW, global_BGW.to(hidden_BTW.dtype)], dim=1)
        for i, block in enumerate(self.blocks):
            if self.checkpointing and self.training:
                hidden_BTW = checkpoint(
                    block, hidden_BTW, time_BW, windows[i % 2], use_reentrant=False
                )
            else:
                hidden_BTW = block(hidden_BTW, time_BW, windows[i % 2])
        return hidden_BTW[:, :num]

    def _windows(
        self, num: int, before: int, there_BT: torch.Tensor | None, device: torch.device
    ) -> _Windows:
        """Return the windows of a sequence of `num` tokens whose first has `before` missing."""
        others = 0 if self.global_GW is None else len(self.global_GW)
        after = -(num + before) % self.window
        if there_BT is None and not (before or after):
            return _Windows(self.window, 0, 0, others, None, None)
        known_BT = there_BT
        if known_BT is None:
            known_BT = torch.ones(1, num, dtype=torch.bool, device=device)
        in_windows = functional.pad(known_BT, (before, after)).unflatten(1, (-1, self.window))
        # Where nothing is there, all are heard, for nobody: of nothing attention is no number.
        in_windows = in_windows | ~in_windows.any(2, keepdim=True)
        in_windows = functional.pad(in_windows, (0, others), value=True).flatten(0, 1)
        by_global = None
        if there_BT is not None:
            by_global = functional.pad(there_BT, (0, others), value=True)[:, None, None]
        return _Windows(self.window, before, after, others, in_windows[:, None, None], by_global)
