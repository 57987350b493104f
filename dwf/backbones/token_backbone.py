"""The base of backbones over sequences of tokens: how they are called, conditions, masks.

Sequences may be of networks of several architectures, each with a part of the numbers. What one
does not have is taken for 0 and comes out as 0.

Shape suffixes: B sequences of a batch, K numbers of a sequence, U tokens of a layer, W width.
"""

import torch
from torch import nn

from dwf.backbones.embedding import ConditionEmbedding, embed, time_layers
from dwf.backbones.hidden import WithHiddenMatrices
from dwf.backbones.shape import Shape


class TokenBackbone(WithHiddenMatrices):
    """Base of backbones over sequences; a kind gives its layers, `_run` and `hidden_layers`.

    Layers that are optional, `embed_condition` the last of them, are built after all others: these
    are then initialised as without.

    Args:
        width: of the vectors that time and condition become.
        shape: of the sequences, which have tokens.
    """

    blocks: nn.ModuleList
    """Its layers in depth; each says its `hidden_layers()`."""
    embed_condition: ConditionEmbedding | None
    """None where it does not learn what a condition means."""

    def __init__(self, width: int, shape: Shape):
        super().__init__()
        self.sections = tuple(shape.sections)
        self.embed_time = time_layers(width)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Return the matrices between hidden features, for `training.optimizer` muon."""
        return [layer.weight for block in self.blocks for layer in block.hidden_layers()]

    def forward(
        self,
        x_BK: torch.Tensor,
        t_B: torch.Tensor,
        condition_BP: torch.Tensor | None = None,
        present_BK: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K].

        Args:
            x_BK: sequences, token after token.
            t_B: their times, or, of shape [1], the one time of all.
            condition_BP: standardised conditions, NaN for none; or, of shape [1, P], those of all.
            present_BK: bool, which numbers each sequence has; None: all.
        """
        time_BW = embed(self.embed_time, self.embed_condition, t_B=t_B, condition_BP=condition_BP)
        if present_BK is None:
            return self._run(x_BK, time_BW, None)
        return self._run(x_BK * present_BK, time_BW, present_BK) * present_BK

    def _run(
        self, x_BK: torch.Tensor, time_BW: torch.Tensor, present_BK: torch.Tensor | None
    ) -> torch.Tensor:
        """Return what `forward` returns, whatever where a sequence has no number.

        Args:
            x_BK: sequences, 0 where one has no number.
            time_BW: vectors of time and condition, or [1, W] where all share one.
            present_BK: which numbers each sequence has; None: all.
        """
        raise NotImplementedError

    def _layers(self, x_BK: torch.Tensor) -> list[torch.Tensor]:
        """Return the tokens of each layer, each [B, U, numbers]."""
        layers = x_BK.split([count * size for count, size in self.sections], dim=1)
        pairs = zip(layers, self.sections, strict=True)
        return [layer.unflatten(1, section) for layer, section in pairs]
