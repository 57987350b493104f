"""Conditional flow matching: what the network of a flow is asked to learn.

The path from a source x0 ~ N(0, s^2) to a code x1 is x_t = (1 - t) x0 + t x1 + sigma eps, and the
velocity that carries the distribution along is u(x, t) = E[x1 - x0 | x_t = x].

Source: Lipman et al., Flow Matching, ICLR 2023 (arXiv 2210.02747), section 4; conditions: Ho and
Salimans, arXiv 2207.12598, algorithm 1.

Shape suffixes: N training codes, B codes of a batch, K numbers of a code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import mse_loss

from dwf.backbones.shape import Shape
from dwf.codecs.codes import tokens_of
from dwf.densities.config import FlowConfig
from dwf.densities.examples import Examples
from dwf.densities.pairing import PairedSections, pair
from dwf.randomness import torch_stream
from dwf.training.task import Share, Task

# The velocity of a predicted target divides by the time left; nearer to 1 than this, it is kept.
LAST_TIME = 0.99
_VALIDATION_DRAWS = 512
_VALIDATION_NUMBERS = 2**24
_ALL = slice(None)


@dataclass(frozen=True)
class Paths:
    """Points on the paths of a batch, and what the network is to say there."""

    xt_BK: torch.Tensor
    """Points, float32."""
    t_B: torch.Tensor
    """Their times in [0, 1]."""
    wanted_BK: torch.Tensor
    """Velocity, target or residual, as `prediction` says."""
    condition_B: torch.Tensor | None
    """Standardised conditions, NaN for none; None where the flow is told nothing."""
    present_BK: torch.Tensor | None
    """bool, of several architectures: numbers that each code has."""

    def take(self, part: slice) -> "Paths":
        """Return those of some places, as views."""
        return Paths(
            xt_BK=self.xt_BK[part],
            t_B=self.t_B[part],
            wanted_BK=self.wanted_BK[part],
            condition_B=None if self.condition_B is None else self.condition_B[part],
            present_BK=None if self.present_BK is None else self.present_BK[part],
        )


class FlowMatching(Task):
    """The task of the training loop: regress the velocity, target or residual of random paths.

    Args:
        config: the flow's settings.
        module: the backbone.
        train: training codes.
        val: held-out codes; may be empty.
        seed: of the fixed source vectors and of validation.
        sections: of sequences, for a pairing of tokens and for `metric`.
        metric: of each section, what the errors of a token count, [C, C]; of `behaviour`.
    """

    draws_whole_rounds = True

    def __init__(
        self,
        config: FlowConfig,
        module: nn.Module,
        *,
        train: Examples,
        val: Examples,
        seed: int,
        sections: PairedSections = (),
        metric: Sequence[torch.Tensor] = (),
    ):
        self.config, self.module, self.seed = config, module, seed
        self.metric = metric
        self.train, self.val, self.sections = train, val, sections
        self.share = Share()
        self.bank_NK = None
        if config.source == "fixed":
            generator = torch_stream(seed, "bank", device=train.codes_NK.device.type)
            self.bank_NK = draw_source(train.codes_NK, config.source_std, generator=generator)

    def start(self, step: int, share: Share) -> None:
        """Take note of which examples of a batch are this rank's; see `Task.start`."""
        self.share = share

    def loss(
        self, module: nn.Module, batch_size: int, *, generator: torch.Generator
    ) -> torch.Tensor:
        """Return the mean squared error over a random batch.

        Noise is paired with codes over the batch of all ranks, so each rank draws all of it.
        """
        count = batch_size * self.share.world
        rows_B = self._draw_rows(count, generator)
        source_BK = None
        if self.bank_NK is not None:
            source_BK = self.bank_NK.index_select(0, self._draw_rows(count, generator))
        batch, drop = self.train.take(rows_B), self.config.drop_condition
        paths = self._draw_paths(batch, generator, source_BK, drop)
        return self._error(module, paths, self.share.of_round(batch_size))

    def validate(self, module: nn.Module) -> float | None:
        """Return the error over held-out codes, at the same noise and times each call."""
        if not len(self.val):
            return None
        device = self.val.codes_NK.device
        generator = torch_stream(self.seed, "validation", device=device.type)
        repeats = -(-_VALIDATION_DRAWS // len(self.val))
        rows = torch.arange(len(self.val), device=device).repeat(repeats)
        total = torch.zeros((), dtype=torch.float64, device=device)
        for rows_B in rows.split(self._validation_rows()):
            paths = self._draw_paths(self.val.take(rows_B), generator)
            total += self._error(module, paths) * len(rows_B)
        return total.item() / len(rows)

    def _validation_rows(self) -> int:
        """Return how many held-out codes are looked at at once."""
        if self.config.pairing == "equivariant":  # as in training: larger batches pair nearer
            return self.config.training.batch_size
        sections = tuple((count, size) for count, size, _ in self.sections)
        shape = Shape(self.val.codes_NK.shape[1], sections or None)
        return max(1, _VALIDATION_NUMBERS // self.config.backbone.widest(shape))

    def _draw_rows(self, count: int, generator: torch.Generator) -> torch.Tensor:
        device = self.train.codes_NK.device
        return torch.randint(len(self.train), (count,), generator=generator, device=device)

    def _draw_paths(
        self,
        batch: Examples,
        generator: torch.Generator,
        x0_BK: torch.Tensor | None = None,
        drop: float = 0.0,
    ) -> Paths:
        """Return points on random paths to codes, and the velocity (or target) wanted there."""
        config, x1_BK, present_BK = self.config, batch.codes_NK, batch.present_NK
        if x0_BK is None:
            x0_BK = draw_source(x1_BK, config.source_std, generator=generator)
        x0_BK = pair(
            config.pairing,
            x0_BK,
            x1_BK=x1_BK,
            sections=self.sections,
            kind_B=batch.kind_N,
            present_BK=present_BK,
        )
        t_B = draw_times(config, len(x1_BK), generator=generator)
        xt_BK = torch.lerp(x0_BK, x1_BK, t_B.unsqueeze(1))
        if config.sigma:
            xt_BK += draw_source(x1_BK, config.sigma, generator=generator)
        wanted_BK = x1_BK if config.prediction == "target" else x1_BK - x0_BK
        if config.prediction == "residual":
            t_B1 = t_B.unsqueeze(1)
            wanted_BK -= normal_velocity(
                xt_BK, t_B1, source_std=config.source_std, sigma=config.sigma
            )
        condition_B = batch.condition_N
        if condition_B is not None:
            condition_B = forget(condition_B, drop, generator=generator)
        return Paths(
            xt_BK, t_B, wanted_BK=wanted_BK, condition_B=condition_B, present_BK=present_BK
        )

    def _error(self, module: nn.Module, paths: Paths, part: slice = _ALL) -> torch.Tensor:
        """Return the mean squared error over a part of the paths; parts' mean is that of all."""
        config, mine = self.config, paths.take(part)
        told = {}
        if mine.condition_B is not None:
            told["condition_B"] = mine.condition_B
        if mine.present_BK is None:
            found_BK, wanted_BK = module(mine.xt_BK, mine.t_B, **told), mine.wanted_BK
            count = wanted_BK.numel()
            plain = mse_loss(found_BK, wanted_BK)
        else:
            # The share of all numbers that count, not of these: parts have more of them or fewer.
            count = paths.present_BK.sum() * (len(mine.t_B) / len(paths.t_B))
            found_BK = module(mine.xt_BK, mine.t_B, present_BK=mine.present_BK, **told)
            wanted_BK = mine.wanted_BK * mine.present_BK
            plain = mse_loss(found_BK, wanted_BK, reduction="sum") / count
        if not config.behaviour:
            return plain
        behavioural = self._weighed(found_BK - wanted_BK) / count
        return torch.lerp(plain, behavioural, config.behaviour)

    def _weighed(self, error_BK: torch.Tensor) -> torch.Tensor:
        """Return the sum of squared errors of all tokens, in the metric of their layer; float32."""
        squares = []
        # Autocast would round the metric, and errors, to bf16.
        with torch.autocast(error_BK.device.type, enabled=False):
            layers = tokens_of(error_BK.float(), self.sections)
            for layer_BUC, metric_CC in zip(layers, self.metric, strict=True):
                tokens = layer_BUC.flatten(0, 1)
                squares.append((tokens * (tokens @ metric_CC)).sum())
        return sum(squares)


def forget(condition_B: torch.Tensor, share: float, *, generator: torch.Generator) -> torch.Tensor:
    """Return conditions of which a random share is NaN, for none."""
    if not share:
        return condition_B
    chance_B = torch.rand(len(condition_B), generator=generator, device=condition_B.device)
    return condition_B.masked_fill(chance_B < share, math.nan)


def draw_source(like_BK: torch.Tensor, std: float, *, generator: torch.Generator) -> torch.Tensor:
    """Return Gaussian noise of a standard deviation, in the shape and place of `like_BK`."""
    return torch.empty_like(like_BK).normal_(0, std, generator=generator)


def draw_times(config: FlowConfig, count: int, *, generator: torch.Generator) -> torch.Tensor:
    """Return t_B in [0, 1], of the distribution that the settings name."""
    device = generator.device
    if config.time == "uniform":
        return torch.rand(count, generator=generator, device=device)
    if config.time == "logit_normal":
        normal_B = torch.randn(count, generator=generator, device=device)
        return (normal_B * config.time_std + config.time_mean).sigmoid()
    # The second smallest of six uniform numbers is Beta(2, 5); torch's sampler takes no generator.
    return torch.rand(count, 6, generator=generator, device=device).kthvalue(2, dim=1).values


def velocity_of_target(
    target_BK: torch.Tensor, x_BK: torch.Tensor, *, t: torch.Tensor, source_std: float, sigma: float
) -> torch.Tensor:
    """Return the velocity u(x, t) where the expected code E[x1 | x_t = x] is known.

    u = E[x1] - E[x0], and given x1 and x_t the source is Gaussian with the mean
    (x_t - t x1) (1 - t) s^2 / ((1 - t)^2 s^2 + sigma^2). Without sigma this is
    u = (x1 - x_t) / (1 - t).

    Args:
        target_BK: E[x1 | x_t = x].
        x_BK: points on the path.
        t: their time, a scalar tensor below 1.
        source_std: s.
        sigma: noise around the path.
    """
    left = 1 - t
    gain = left * source_std**2 / (left**2 * source_std**2 + sigma**2)
    return target_BK - gain * (x_BK - t * target_BK)


def normal_velocity(
    x_BK: torch.Tensor, t: torch.Tensor, *, source_std: float, sigma: float
) -> torch.Tensor:
    """Return the velocity u(x, t) = E[x1 - x0 | x_t = x] of standard normal codes x1.

    The three are jointly normal, so it is linear: the covariance of x1 - x0 and x_t over the
    variance of x_t, x (t - (1 - t) s^2) / (t^2 + (1 - t)^2 s^2 + sigma^2).

    Args:
        x_BK: points on the path.
        t: their time, of a shape that broadcasts.
        source_std: s.
        sigma: noise around the path.
    """
    left, variance = 1 - t, source_std**2
    return x_BK * ((t - left * variance) / (t**2 + left**2 * variance + sigma**2))
