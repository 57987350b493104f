"""Backbones for vectors.

Times t_B may also have the shape [1], for one time of all vectors: it is then embedded once.

Shape suffixes: B vectors of a batch, K numbers of a vector, T time features, W width.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.config import BlockMLPConfig, PublishedMLPConfig, ResidualMLPConfig
from dwf.backbones.embedding import ConditionEmbedding, FourierTime, embed, zeroed
from dwf.backbones.hidden import WithHiddenMatrices
from dwf.backbones.shape import Shape


class PublishedMLP(nn.Module):
    """DeepWeightFlow's network: time is embedded once and joined to the input.

    The layer over the joined [x, time] is kept as its two halves: its gradient with respect to x,
    a sixth of all the arithmetic where codes are long, is then never computed.

    Conditions are joined likewise, as its generator of several data sets has the data set: each is
    one number, a category that of its place among all (so 0.5 lies between the first two), none -1.
    """

    def __init__(self, config: PublishedMLPConfig, shape: Shape, *, told: Sequence[int] = ()):
        super().__init__()
        num_features = shape.size
        hidden, num_time = config.hidden, config.time_features
        self.embed_time = nn.Sequential(
            nn.Linear(1, num_time), nn.GELU(), nn.Linear(num_time, num_time)
        )
        self.enter = nn.Linear(num_features, hidden)
        self.enter_time = nn.Linear(num_time, hidden, bias=False)
        self.told = tuple(told)
        num_joined = num_features + num_time * (2 if told else 1)
        bound = num_joined**-0.5  # torch's, of the joined layer
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
        if told:
            self.embed_condition = nn.Sequential(
                nn.Linear(len(told), num_time), nn.GELU(), nn.Linear(num_time, num_time)
            )
            self.enter_condition = nn.Linear(num_time, hidden, bias=False)
            nn.init.uniform_(self.enter_condition.weight, -bound, bound)

    def forward(
        self, x_BK: torch.Tensor, t_B: torch.Tensor, condition_BP: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K].

        Args:
            x_BK: points.
            t_B: their times, or, of shape [1], the one time of all.
            condition_BP: standardised conditions, NaN for none; or, of shape [1, P], those of all.
        """
        time_BT = self.embed_time(t_B.unsqueeze(1))
        entered_BW = self.enter(x_BK) + self.enter_time(time_BT)
        if self.told:
            if condition_BP is None:
                condition_BP = x_BK.new_full((1, sum(self.told)), math.nan)
            condition_BT = self.embed_condition(self._numbers(condition_BP))
            entered_BW = entered_BW + self.enter_condition(condition_BT)
        return self.layers(entered_BW)

    def _numbers(self, condition_BP: torch.Tensor) -> torch.Tensor:
        """Return one number for each condition, -1 for none."""
        numbers = [
            part_BP if size == 1 else part_BP @ torch.arange(size).to(part_BP).unsqueeze(1)
            for part_BP, size in zip(condition_BP.split(self.told, dim=1), self.told, strict=True)
        ]
        return torch.cat(numbers, dim=1).nan_to_num(-1.0)


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


class ResidualMLP(WithHiddenMatrices):
    """Residual blocks under adaptive modulation by time; its output begins at zero."""

    def __init__(self, config: ResidualMLPConfig, shape: Shape, *, told: Sequence[int] = ()):
        super().__init__()
        width, num_time = config.width, config.time_features
        self.embed_time = nn.Sequential(
            FourierTime(num_time),
            nn.Linear(num_time, num_time),
            nn.SiLU(),
            nn.Linear(num_time, num_time),
            nn.SiLU(),
        )
        self.enter = nn.Linear(shape.size, width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.modulate = zeroed(nn.Linear(num_time, 2 * width))
        self.leave = zeroed(nn.Linear(width, shape.size))
        self.embed_condition = ConditionEmbedding(num_time, told) if told else None

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Return the matrices between hidden features, for `training.optimizer` muon."""
        return [block.layers[i].weight for block in self.blocks for i in (0, 3)]

    def forward(
        self, x_BK: torch.Tensor, t_B: torch.Tensor, condition_BP: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K].

        Args:
            x_BK: points.
            t_B: their times, or, of shape [1], the one time of all.
            condition_BP: standardised conditions, NaN for none; or, of shape [1, P], those of all.
        """
        time_BT = embed(self.embed_time, self.embed_condition, t_B=t_B, condition_BP=condition_BP)
        hidden_BW = self.enter(x_BK)
        for block in self.blocks:
            hidden_BW = block(hidden_BW, time_BT)
        shift, scale = self.modulate(time_BT).chunk(2, dim=1)
        normed = functional.layer_norm(hidden_BW, hidden_BW.shape[1:])
        return self.leave(torch.addcmul(shift, normed, 1 + scale))


class BlockMLP(nn.Module):
    """VAE-Diffusion's denoiser: blocks of two layers, each with time added to its outputs.

    Its time is as everywhere here, sines and cosines of a number in [0, 1]; the published one takes
    them of the number of the step.
    """

    def __init__(self, config: BlockMLPConfig, shape: Shape, *, told: Sequence[int] = ()):
        super().__init__()
        width, num_time = config.width, config.time_features
        self.embed_time = nn.Sequential(
            FourierTime(num_time),
            nn.Linear(num_time, num_time),
            nn.GELU(),
            nn.Linear(num_time, num_time),
        )
        entering = (shape.size, *[width] * (config.depth - 1))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(enter, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
            for enter in entering
        )
        self.times = nn.ModuleList(
            nn.Sequential(nn.Linear(num_time, width), nn.GELU()) for _ in entering
        )
        self.leave = nn.Linear(width, shape.size)
        self.embed_condition = ConditionEmbedding(num_time, told) if told else None

    def forward(
        self, x_BK: torch.Tensor, t_B: torch.Tensor, condition_BP: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K].

        Args:
            x_BK: points.
            t_B: their times, or, of shape [1], the one time of all.
            condition_BP: standardised conditions, NaN for none; or, of shape [1, P], those of all.
        """
        time_BT = embed(self.embed_time, self.embed_condition, t_B=t_B, condition_BP=condition_BP)
        hidden = x_BK
        for block, time in zip(self.blocks, self.times, strict=True):
            hidden = block(hidden) + time(time_BT)
        return self.leave(hidden)
