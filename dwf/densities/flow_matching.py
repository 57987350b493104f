"""Conditional flow matching: what the network of a flow is asked to learn.

The path from a source x0 ~ N(0, s^2) to a code x1 is x_t = (1 - t) x0 + t x1 + sigma eps, and the
velocity that carries the distribution along is u(x, t) = E[x1 - x0 | x_t = x].

Source: Lipman et al., Flow Matching, ICLR 2023 (arXiv 2210.02747), section 4.

Shape suffixes: N training codes, B codes of a batch, K numbers of a code.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from dwf.densities.answers import Ask, answer_error
from dwf.densities.config import FlowConfig
from dwf.densities.course import Course
from dwf.densities.examples import ALL, Examples, Learnable
from dwf.densities.fixed_noise import FixedNoise
from dwf.densities.pairing import PairedSections, pair
from dwf.densities.paths import Paths, PathTask, draw_source
from dwf.training.task import Share

# The velocity of a predicted target divides by the time left; nearer to 1 than this, it is kept.
LAST_TIME = 0.99


class FlowMatching(PathTask):
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

    config: FlowConfig

    def __init__(
        self,
        config: FlowConfig,
        module: nn.Module,
        *,
        train: Learnable,
        val: Learnable,
        seed: int,
        sections: PairedSections = (),
        metric: Sequence[torch.Tensor] = (),
    ):
        super().__init__(
            config, module, train=train, val=val, seed=seed, sections=sections, metric=metric
        )
        self.course = course_of(config, sections)
        self.ask: Ask | None = None
        """Asks networks, of `answers`; None: they are not asked."""
        self.noise: FixedNoise | None = None
        """Noise of `source: fixed`, once it learns."""

    def start(self, step: int, share: Share) -> None:
        """Draw the fixed source, or find it where an attempt before drew it; see the base."""
        super().start(step, share)
        if self.config.source == "fixed":
            self.noise = self.train.fixed_noise(self.config.source_std, seed=self.seed)

    @property
    def pairs_batches(self) -> bool:
        """Whether noise is paired with codes over a batch; see the base."""
        return self.config.pairing in ("optimal_transport", "equivariant")

    def validation_rows(self) -> int:
        """Return how many held-out codes are looked at at once."""
        if self.config.pairing == "equivariant":  # as in training: larger batches pair nearer
            return self.config.training.batch_size
        return super().validation_rows()

    def draw_paths(
        self,
        batch: Examples,
        generator: torch.Generator,
        *,
        learns: bool = False,
        read: slice = ALL,
    ) -> Paths:
        """Return points on random paths to codes, and what is wanted there; see the base."""
        config, x1_BK, present_BK = self.config, batch.codes_NK, batch.present_NK
        if learns and config.source == "fixed":
            x0_BK = self.noise.take(self.draw_rows(len(x1_BK), generator), read)
        else:
            x0_BK = draw_source(x1_BK, config.source_std, generator=generator)
        x0_BK = pair(
            config.pairing,
            x0_BK,
            x1_BK=x1_BK,
            sections=self.sections,
            kind_B=batch.kind_N,
            present_BK=present_BK,
        )
        t_B, moves_BK = draw_times(config, len(x1_BK), generator=generator), None
        if self.course is None:
            xt_BK = torch.lerp(x0_BK, x1_BK, t_B.unsqueeze(1))
        else:
            t_B = self.course.at_random(t_B, generator)
            tau_BK, moves_BK = self.course.gone(t_B)
            xt_BK = torch.lerp(x0_BK, x1_BK, tau_BK)
        if config.sigma:
            xt_BK += draw_source(x1_BK, config.sigma, generator=generator)
        wanted_BK = x1_BK if config.prediction == "target" else x1_BK - x0_BK
        if config.prediction == "residual":
            t_B1 = t_B.unsqueeze(1)
            wanted_BK -= normal_velocity(
                xt_BK, t_B1, source_std=config.source_std, sigma=config.sigma
            )
        condition_BP = self.draw_conditions(batch, generator, learns=learns)
        places_M = None
        if learns and self.ask is not None:
            num = config.answers.images
            places_M = torch.rand(num, generator=generator, device=generator.device)
        return Paths(
            xt_BK,
            t_B,
            wanted_BK=wanted_BK,
            condition_BP=condition_BP,
            present_BK=present_BK,
            moves_BK=moves_BK,
            places_M=places_M,
        )

    def error(
        self, said_BK: torch.Tensor, paths: Paths, *, count: int | torch.Tensor
    ) -> torch.Tensor:
        """Return the squared error of the numbers that move, and of answers; see the base."""
        if paths.moves_BK is None:
            plain = super().error(said_BK, paths, count=count)
            if paths.places_M is None:
                return plain
            answers = answer_error(
                self.ask,
                self._codes(said_BK, paths),
                true_BK=self._codes(paths.wanted_BK, paths),
                left_B=1 - paths.t_B,
                places_M=paths.places_M,
                config=self.config,
            )
            return torch.lerp(plain, answers, self.config.answers.share)
        # A share w of all numbers move: the scale keeps the loss what it is where all do.
        weight_BK = paths.moves_BK * self.course.length**-0.5
        paths = replace(paths, wanted_BK=paths.wanted_BK * weight_BK)
        return super().error(said_BK * weight_BK, paths, count=count)

    def _codes(self, answer_BK: torch.Tensor, paths: Paths) -> torch.Tensor:
        """Return the codes to which points move where the network says `answer_BK`."""
        config, xt_BK, t_B1 = self.config, paths.xt_BK, paths.t_B.unsqueeze(1)
        if config.prediction == "target":
            return answer_BK
        if config.prediction == "residual":
            answer_BK = answer_BK + normal_velocity(
                xt_BK, t_B1, source_std=config.source_std, sigma=config.sigma
            )
        return xt_BK + (1 - t_B1) * answer_BK


def course_of(config: FlowConfig, sections: PairedSections) -> Course | None:
    """Return when the numbers of each layer of codes move; None: all the time."""
    if not config.stagger:
        return None
    return Course.of(config.stagger, ((count, size) for count, size, _ in sections))


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
