"""Convolutions along a vector: the denoiser of p-diff (arXiv 2402.13144), of both its versions.

The vector is a signal of one channel whose length never changes. Its stages widen the channels and
narrow them again, as a U-Net's do; time is added to what enters each of them, one number for each
place of the vector.

The first version norms what enters its first stage, and so cannot see how large the noise is. Here
it is not normed.

Shape suffixes: B vectors of a batch, K numbers of a vector, T width of time, C channels.
"""

from collections.abc import Sequence

import torch
from torch import nn

from dwf.backbones.config import Conv1dConfig
from dwf.backbones.embedding import ConditionEmbedding, FourierTime, embed
from dwf.backbones.shape import Shape
from dwf.errors import ConfigError


class Conv1d(nn.Module):
    """Convolutions along a vector, with skips between stages of as many channels.

    Raises:
        ConfigError: vectors of one number, and stages that norm each vector by itself.
    """

    def __init__(self, config: Conv1dConfig, shape: Shape, *, told: Sequence[int] = ()):
        super().__init__()
        if config.stage == "double" and shape.size < 2:
            raise ConfigError(
                f"backbone.stage = 'double' norms each vector by itself, and codes have "
                f"{shape.size} number: set more latents, or stage single"
            )
        width = config.time_width
        hidden = nn.Sequential(nn.SiLU(), nn.Linear(width, shape.size))
        self.embed_time = nn.Sequential(
            FourierTime(config.time_features), nn.Linear(config.time_features, width), hidden
        )
        make = _single if config.stage == "single" else _double
        last = len(config.steps) - 1
        self.stages = nn.ModuleList(
            make(enter, leave, kernel=config.kernel, first=i == 0, last=i == last)
            for i, (enter, leave) in enumerate(config.steps)
        )
        self.num_skips = len(config.channels) - 1
        self.embed_condition = ConditionEmbedding(width, told) if told else None

    def forward(
        self, x_BK: torch.Tensor, t_B: torch.Tensor, condition_BP: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K].

        Args:
            x_BK: points.
            t_B: their times, or, of shape [1], the one time of all.
            condition_BP: standardised conditions, NaN for none; or, of shape [1, P], those of all.
        """
        time_B1K = embed(
            self.embed_time, self.embed_condition, t_B=t_B, condition_BP=condition_BP
        ).unsqueeze(1)
        x_BCK, kept = x_BK.unsqueeze(1), []
        for i, stage in enumerate(self.stages):
            if i > self.num_skips + 1:
                x_BCK = x_BCK + kept.pop()
            x_BCK = stage(x_BCK + time_B1K)
            if i < self.num_skips:
                kept.append(x_BCK)
        return x_BCK.squeeze(1)


def _single(enter: int, leave: int, *, kernel: int, first: bool, last: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv1d(enter, leave, kernel, padding=kernel // 2)]
    if not last:
        layers += [nn.BatchNorm1d(leave), nn.ELU()]
    return nn.Sequential(*layers)


def _double(enter: int, leave: int, *, kernel: int, first: bool, last: bool) -> nn.Sequential:
    middle = enter if last else leave
    entrance = [] if first else [nn.LeakyReLU(), nn.InstanceNorm1d(enter)]
    return nn.Sequential(
        *entrance,
        nn.Conv1d(enter, middle, kernel, padding=kernel // 2),
        nn.LeakyReLU(),
        nn.InstanceNorm1d(middle),
        nn.Conv1d(middle, leave, kernel, padding=kernel // 2),
    )
