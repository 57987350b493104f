"""Flow matching as a density: its velocity, samples and likelihood; the rest is in `learnt.py`.

Within, all codes are vectors: of a sequence, the numbers that stand for weights, token after token.
So a loss is a mean over weights, and a likelihood is on their space, whatever the padding. Of codes
of several architectures, vectors have the numbers of all, and those that a network lacks count for
nothing.

Shape suffixes: N codes, B codes of a chunk, K numbers of a code, A architectures.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch

from dwf.codecs.codes import Codes
from dwf.densities.asked import Wanted
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.densities.course import Course
from dwf.densities.density import Setting
from dwf.densities.flow_matching import (
    LAST_TIME,
    FlowMatching,
    course_of,
    normal_velocity,
    velocity_of_target,
)
from dwf.densities.guidance import guided
from dwf.densities.learnt import CHUNK_NUMBERS, LearntDensity
from dwf.densities.likelihood import log_density
from dwf.densities.scaling import check_codes
from dwf.densities.solver import Watch, solve
from dwf.errors import ConfigError
from dwf.randomness import torch_stream

# Up to this many numbers, a likelihood takes the exact trace of the Jacobian.
_EXACT_FEATURES = 64


class Flow(LearntDensity):
    """A continuous normalising flow from Gaussian noise (t = 0) to codes (t = 1)."""

    files = ("flow.pt",)
    settings = FlowConfig
    learns = FlowMatching
    config: FlowConfig

    def velocity(
        self,
        x_BK: torch.Tensor,
        t: torch.Tensor,
        *,
        condition_BP: torch.Tensor | None = None,
        present_BK: torch.Tensor | None = None,
        autoguidance: float = 1.0,
    ) -> torch.Tensor:
        """Return the velocity_BK of points in standardised units at one time in [0, 1].

        Args:
            x_BK: points.
            t: their time, a scalar.
            condition_BP: standardised conditions, or those of all, [1, P]; None: none.
            present_BK: which numbers each point has, or [1, K]; None: all.
            autoguidance: see `answer`; 1: as learnt.
        """
        config = self.config
        if config.prediction == "target":
            t = t.clamp(max=LAST_TIME)
        said_BK = self.answer(
            x_BK,
            t.reshape(1),
            autoguidance=autoguidance,
            condition_BP=condition_BP,
            present_BK=present_BK,
        )
        if config.prediction == "target":
            return velocity_of_target(
                said_BK, x_BK, t=t, source_std=config.source_std, sigma=config.sigma
            )
        if self.course is not None:
            _, moves_1K = self.course.gone(t.reshape(1))
            return said_BK * (moves_1K / self.course.length)
        if config.prediction == "velocity":
            return said_BK
        return said_BK + normal_velocity(x_BK, t, source_std=config.source_std, sigma=config.sigma)

    @cached_property
    def course(self) -> Course | None:
        """When the numbers of each layer move; None: all the time."""
        return course_of(self.config, self.sections)

    @property
    def spans(self) -> Sequence[tuple[float, float]]:
        """Spans of time between which the velocity jumps."""
        return self.course.spans if self.course else ()

    def draw(
        self,
        noise_BK: torch.Tensor,
        solver: SolverConfig,
        *,
        seed: int,
        first: int,
        condition_BP: torch.Tensor | None = None,
        guidance: float | tuple[float, ...] = 1.0,
        autoguidance: float = 1.0,
        present_BK: torch.Tensor | None = None,
        watch: Watch | None = None,
    ) -> torch.Tensor:
        """Return the standardised codes that noise flows to, without chance; see the base."""

        def velocity(t: torch.Tensor, x_BK: torch.Tensor) -> torch.Tensor:
            weight = self.led(autoguidance, t)
            return guided(
                lambda told: self.velocity(
                    x_BK,
                    t,
                    condition_BP=told,
                    present_BK=present_BK,
                    autoguidance=weight,
                ),
                condition_BP,
                guidance=guidance,
                sizes=self.conditions.sizes if self.conditions else (),
            )

        start_BK = noise_BK * self.config.source_std
        return solve(velocity, start_BK, config=solver, spans=self.spans, watch=watch)

    def log_prob(
        self,
        codes: Codes,
        exact: bool | None = None,
        *,
        probes: int = 8,
        seed: int = 0,
        condition: Wanted = None,
        **solver: Setting,
    ) -> torch.Tensor:
        """Return the log density of codes in nats, float32, shape [N].

        By the instantaneous change of variables (Chen et al., arXiv 1806.07366, eq. 8). Of codes of
        several architectures, the density of a network's numbers given its architecture.

        Args:
            codes: in the shape of the training codes.
            exact: the exact trace of the Jacobian, in O(K) more time; otherwise Hutchinson's
                estimate (arXiv 1810.01367), unbiased. Default: exact up to 64 numbers.
            probes: random signs an estimate is the mean of.
            seed: of the random signs.
            condition: given which, one value of each; None: none.
            solver: settings of `SolverConfig` other than the configured ones.

        Raises:
            ConfigError: as of `sample`.
        """
        check_codes(codes, self.shape)
        asked = self.ask(condition)
        if asked and not asked.is_constant:
            raise ConfigError(
                f"condition = {condition}: a likelihood is given one value of each condition: ask "
                "for one, without `each` and `..`"
            )
        condition_BP = asked and asked.rows(0, 1).to(self.device)
        num_features = self.shape.size
        settings = replace(self.config.solver, **solver)
        exact = num_features <= _EXACT_FEATURES if exact is None else exact
        generator = torch_stream(seed, "hutchinson")
        backward = num_features if exact else probes
        chunk = max(1, CHUNK_NUMBERS // (self.config.backbone.widest(self.shape) * backward))
        parts = []
        for start in range(0, len(codes), chunk):
            rows = torch.arange(start, min(start + chunk, len(codes)))
            some = self.examples(codes.take(rows), None)
            x_BK, present_BK = some.codes_NK, some.present_NK
            signs = torch.randint(0, 2, (probes, *x_BK.shape), generator=generator) * 2.0 - 1
            part_B = log_density(
                lambda x, t, present: self.velocity(
                    x, t, condition_BP=condition_BP, present_BK=present
                ),
                x_BK,
                settings=settings,
                spans=self.spans,
                source_std=self.config.source_std,
                present_BK=present_BK,
                signs_SBK=None if exact else signs.to(x_BK),
            )
            parts.append(part_B - self.scaling.log_volume(num_features, present_BK))
        return torch.cat([torch.empty(0), *parts]).float().cpu()
