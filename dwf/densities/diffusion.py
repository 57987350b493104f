"""Denoising diffusion as a density: its samples; the rest is in `learnt.py`.

Within, all codes are vectors in standardised units, of a sequence the numbers that stand for
weights, token after token. Time 0 is the code, and 1 is noise.

Shape suffixes: B codes of a chunk, K numbers of a code, P numbers of all conditions.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NoReturn

import torch

from dwf.codecs.codes import Codes
from dwf.densities.config import DiffusionConfig, DiffusionSolverConfig
from dwf.densities.denoising import Denoising, Noising
from dwf.densities.examples import Learnable
from dwf.densities.guidance import guided
from dwf.densities.learnt import CHUNK_NUMBERS, LearntDensity
from dwf.densities.paths import PathTask
from dwf.densities.samplers import denoise
from dwf.densities.solver import Watch
from dwf.errors import ConfigError
from dwf.metrics import logger
from dwf.plain import Json
from dwf.randomness import torch_stream
from dwf.training.loop import Outcome

# Of the numbers of a code: clipping more of them changes what is drawn.
_MUCH_CLIPPED = 0.01


class Diffusion(LearntDensity):
    """A diffusion from codes to noise in steps, and a network that leads back."""

    files = ("diffusion.pt",)
    settings = DiffusionConfig
    learns = Denoising
    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig):
        super().__init__(config)
        self._warned: set[str] = set()

    @cached_property
    def noising(self) -> Noising:
        """How codes become noise."""
        return Noising(self.config.kept_S, self.device)

    @property
    def facts(self) -> dict[str, Json]:
        """`signal_left`: the part of a code that is left at the last step."""
        return {"signal_left": self.config.signal_left}

    def fit(self, train_codes: Codes, val_codes: Codes, **how: Any) -> Outcome:
        """Train the network, and say how much of a code the last step leaves; see the base."""
        for line in self.config.describe():
            logger.info("%s", line)
        return super().fit(train_codes, val_codes, **how)

    def task(
        self, train: Learnable, val: Learnable, *, seed: int, metric: Sequence[torch.Tensor]
    ) -> PathTask:
        """Return the task of learning what `prediction` names; see the base."""
        if self.config.clip is not None:
            num = max(1, CHUNK_NUMBERS // train.size)
            beyond = max(self._clip(some.codes_NK)[1] for some in train.blocks(num))
            self._warn_of_clipping(beyond, "a training network's code")
        return super().task(train, val, seed=seed, metric=metric)

    def draw(
        self,
        noise_BK: torch.Tensor,
        solver: DiffusionSolverConfig,
        *,
        seed: int,
        first: int,
        condition_BP: torch.Tensor | None = None,
        guidance: float | tuple[float, ...] = 1.0,
        autoguidance: float = 1.0,
        present_BK: torch.Tensor | None = None,
        watch: Watch | None = None,
    ) -> torch.Tensor:
        """Return the standardised codes that noise becomes; see the base."""
        beyond = 0.0

        def predict(x_BK: torch.Tensor, step: int) -> torch.Tensor:
            nonlocal beyond
            if present_BK is not None:
                x_BK = x_BK * present_BK
            done = 1 - (step + 1) / self.noising.num_steps
            if watch is not None:
                watch(done, x_BK)
            step_B = torch.tensor([step], device=x_BK.device)
            said_BK = guided(
                lambda told: self.answer(
                    x_BK,
                    self.noising.times(step_B),
                    autoguidance=self.led(autoguidance, done),
                    condition_BP=told,
                    present_BK=present_BK,
                ),
                condition_BP,
                guidance=guidance,
                sizes=self.conditions.sizes if self.conditions else (),
            )
            said_BK, *places = said_BK.split(x_BK.shape[1], dim=1)
            codes_BK = self.noising.codes(self.config.prediction, said_BK, x_BK=x_BK, step_B=step_B)
            codes_BK, share = self._clip(codes_BK)
            beyond = max(beyond, share)  # of the step that cuts most
            return torch.cat([codes_BK, *places], dim=1)

        drawn_BK = denoise(
            predict,
            noise_BK,
            kept_S=self.config.kept_S,
            config=solver,
            variance=self.config.variance,
            streams=lambda: [
                torch_stream(seed, "on the way", first + i) for i in range(len(noise_BK))
            ],
        )
        self._warn_of_clipping(beyond, "a code on its way")
        return drawn_BK

    def _clip(self, codes_BK: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return codes within `clip`, and the largest share of a code's numbers beyond it."""
        clip = self.config.clip
        if clip is None or not len(codes_BK):
            return codes_BK, 0.0
        beyond = (codes_BK.abs() > clip).float().mean(1).max().item()
        return codes_BK.clamp(-clip, clip), beyond

    def _warn_of_clipping(self, beyond: float, what: str) -> None:
        if beyond > _MUCH_CLIPPED and what not in self._warned:
            self._warned.add(what)
            logger.warning(
                "clip = %g cuts %.1f %% of %s (in standardised units): raise density.clip, or "
                "leave it out",
                self.config.clip,
                100 * beyond,
                what,
            )

    def log_prob(self, codes: Codes, **how: object) -> NoReturn:
        """Refuse: the variational bound is no likelihood.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a diffusion bounds the likelihood of codes and does not know it: choose "
            "density.kind = flow, gaussian or kde for likelihoods"
        )
