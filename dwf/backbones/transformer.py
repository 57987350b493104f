"""A transformer over token sequences, for which the tokens of one layer are a set.

Tokens enter and leave by one linear map per layer of the coded network; there are no positions of
units. So permuting the tokens of a layer permutes what comes out.

With `positions` each place of the sequence has a learned vector, added on entry: then the order of
the tokens counts, as it must where the codec ties a token's meaning to its place. With
`last_exchangeable` the tokens of the last layer are a set all the same: of a network with several
hidden layers the order of an earlier one is that of the numbers within the next one's tokens.

Among networks of several architectures, no token attends to one that has no numbers.

Shape suffixes: B sequences of a batch, T tokens of a sequence, W width.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.attention import POSITION_STD, AttentionBackbone, AttentionBlock
from dwf.backbones.config import TransformerConfig
from dwf.backbones.dot_product import attend
from dwf.backbones.embedding import ConditionEmbedding
from dwf.backbones.shape import Shape


class _Block(AttentionBlock[torch.Tensor | None]):
    """All tokens hear each other, but for those that a mask [B, 1, 1, T] leaves out."""

    def hear(self, heads: torch.Tensor, heard: torch.Tensor | None) -> torch.Tensor:
        query, key, value = heads.unbind(2)
        return attend(query, key, value_BTHD=value, heard=heard).flatten(2)


class Transformer(AttentionBackbone):
    """Blocks of attention under adaptive modulation by time; its output begins at zero.

    Args:
        config: its settings.
        shape: sections are the layers of the coded network (U tokens, numbers of each), in the
            order in which a sequence holds them; without `positions` tokens of one are
            exchangeable.
        told: numbers of each condition, see `ConditionEmbedding`; none: it is told nothing.
    """

    def __init__(self, config: TransformerConfig, shape: Shape, *, told: Sequence[int] = ()):
        super().__init__(config, shape, block=_Block)
        width = config.width
        self.positions_TW: nn.Parameter | None = None
        if config.positions:
            places_TW = torch.randn(config.num_ordered(self.sections), width)
            self.positions_TW = nn.Parameter(POSITION_STD * places_TW)
        self.embed_condition = ConditionEmbedding(width, told) if told else None

    def _place(self, hidden_BTW: torch.Tensor) -> torch.Tensor:
        if self.positions_TW is None:
            return hidden_BTW
        rest = hidden_BTW.shape[1] - len(self.positions_TW)
        return hidden_BTW + functional.pad(self.positions_TW, (0, 0, 0, rest))

    def _through(
        self, hidden_BTW: torch.Tensor, time_BW: torch.Tensor, there_BT: torch.Tensor | None
    ) -> torch.Tensor:
        heard = None if there_BT is None else there_BT[:, None, None]  # [B, heads, from, to]
        for block in self.blocks:
            hidden_BTW = block(hidden_BTW, time_BW, heard)
        return hidden_BTW
