"""Denoising diffusion: what its network is asked to learn, and codes from what it answers.

A code x_0 in noise is x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s) eps. What may be predicted (noise,
sample, previous, velocity) is linear in x_0 and x_s, so each gives the others.

Sources: Ho et al., arXiv 2006.11239, eq. 4, 7 and 14; Salimans and Ho, arXiv 2202.00512 (velocity);
Nichol and Dhariwal, arXiv 2102.09672, eq. 15 and 16 (learnt variance).

Shape suffixes: B codes of a batch, K numbers of a code, S steps.
"""

from functools import cached_property

import numpy as np
import torch
from torch import nn

from dwf.backbones.embedding import FourierTime, zeroed
from dwf.backbones.hidden import WithHiddenMatrices
from dwf.densities.config import DiffusionConfig
from dwf.densities.examples import ALL, Examples
from dwf.densities.paths import Paths, PathTask, draw_source
from dwf.errors import ConfigError

# The weight of the variational bound beside the squared error: arXiv 2102.09672, section 3.1.
_BOUND_WEIGHT = 1e-3
_VARIANCE_FEATURES = 32


class Noising:
    """How codes become noise, step by step, and codes from points and answers.

    Args:
        kept_S: abar of each step, float64; see `schedules.kept_of`.
        device: where it works.
    """

    def __init__(self, kept_S: np.ndarray, device: torch.device):
        def on_device(values_S: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values_S).float().to(device)

        before_S = np.concatenate([[1.0], kept_S[:-1]])
        self.num_steps = len(kept_S)
        self.signal_S, self.noise_S = on_device(kept_S**0.5), on_device((1 - kept_S) ** 0.5)
        # The point before, given code and point, is normal: its mean's weights and its variance.
        beta_S = 1 - kept_S / before_S
        self.mean_of_code_S = on_device(before_S**0.5 * beta_S / (1 - kept_S))
        self.mean_of_point_S = on_device((1 - beta_S) ** 0.5 * (1 - before_S) / (1 - kept_S))
        self.small_S = on_device(beta_S * (1 - before_S) / (1 - kept_S))
        self.large_S = on_device(beta_S)

    def times(self, step_B: torch.Tensor) -> torch.Tensor:
        """Return steps, from 0, as times in (0, 1], float32; 1 is noise."""
        return (step_B + 1).float() / self.num_steps

    def steps(self, t_B: torch.Tensor) -> torch.Tensor:
        """Return times as steps, int64."""
        return (t_B * self.num_steps).round().long() - 1

    def points(
        self, codes_BK: torch.Tensor, noise_BK: torch.Tensor, *, step_B: torch.Tensor
    ) -> torch.Tensor:
        """Return codes in noise after some steps, x_BK."""
        signal_B1, noise_B1 = _at(step_B, self.signal_S, self.noise_S)
        return signal_B1 * codes_BK + noise_B1 * noise_BK

    def answers(
        self,
        prediction: str,
        codes_BK: torch.Tensor,
        *,
        noise_BK: torch.Tensor,
        step_B: torch.Tensor,
    ) -> torch.Tensor:
        """Return what is wanted at the `points` of codes and noise, [B, K]."""
        if prediction == "noise":
            return noise_BK
        if prediction == "sample":
            return codes_BK
        if prediction == "velocity":
            return self.points(noise_BK, -codes_BK, step_B=step_B)  # signal eps - noise x_0
        of_code_B1, of_point_B1 = _at(step_B, self.mean_of_code_S, self.mean_of_point_S)
        return of_code_B1 * codes_BK + of_point_B1 * self.points(codes_BK, noise_BK, step_B=step_B)

    def codes(
        self, prediction: str, said_BK: torch.Tensor, *, x_BK: torch.Tensor, step_B: torch.Tensor
    ) -> torch.Tensor:
        """Return the codes x_0 that answers stand for, [B, K].

        Args:
            prediction: what they answer.
            said_BK: answers.
            x_BK: points that they are about.
            step_B: their steps from 0, int64, or, of shape [1], that of all.
        """
        if prediction == "sample":
            return said_BK
        if prediction == "previous":
            of_code_B1, of_point_B1 = _at(step_B, self.mean_of_code_S, self.mean_of_point_S)
            return (said_BK - of_point_B1 * x_BK) / of_code_B1
        signal_B1, noise_B1 = _at(step_B, self.signal_S, self.noise_S)
        if prediction == "velocity":
            return signal_B1 * x_BK - noise_B1 * said_BK
        return (x_BK - noise_B1 * said_BK) / signal_B1


def _at(step_B: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return what is known of each step at some of them, each [B, 1]."""
    return tuple(each_S[step_B].unsqueeze(1) for each_S in values)


class WithVariance(WithHiddenMatrices):
    """A backbone, and for each time and number where a step's variance lies, as [B, 2 K].

    The second half is in (-1, 1): from the variance of the step given the code to that of the step
    forwards, on a logarithmic scale. It does not look at the point: of Gaussian codes the best
    variance does not depend on it.

    Args:
        backbone: answers [B, K].
        size: K.
    """

    def __init__(self, backbone: nn.Module, size: int):
        super().__init__()
        self.backbone = backbone
        self.variance = nn.Sequential(
            FourierTime(_VARIANCE_FEATURES),
            nn.Linear(_VARIANCE_FEATURES, _VARIANCE_FEATURES),
            nn.SiLU(),
            zeroed(nn.Linear(_VARIANCE_FEATURES, size)),
            nn.Tanh(),
        )

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Return those of the backbone.

        Raises:
            ConfigError: it has none.
        """
        if not isinstance(self.backbone, WithHiddenMatrices):
            raise ConfigError(
                f"training.optimizer = 'muon': {type(self.backbone).__name__} has no hidden "
                "matrices to give it: choose adamw, or another backbone"
            )
        return self.backbone.hidden_matrices()

    def forward(self, x_BK: torch.Tensor, t_B: torch.Tensor, **told: torch.Tensor) -> torch.Tensor:
        """Return the backbone's answers and places of variances; arguments as the backbone's."""
        said_BK = self.backbone(x_BK, t_B, **told)
        return torch.cat([said_BK, self.variance(t_B).expand_as(said_BK)], dim=1)


class Denoising(PathTask):
    """The task of the training loop: regress what the settings' `prediction` names.

    With a learnt variance the variational bound of each step is learnt too, by the variance alone.
    The module is then `WithVariance`.
    """

    config: DiffusionConfig

    @cached_property
    def noising(self) -> Noising:
        """How codes become noise."""
        return Noising(self.config.kept_S, self.train.device)

    def draw_paths(
        self,
        batch: Examples,
        generator: torch.Generator,
        *,
        learns: bool = False,
        read: slice = ALL,
    ) -> Paths:
        """Return codes in noise after random steps, and what is wanted there; see the base."""
        noising, codes_BK = self.noising, batch.codes_NK
        step_B = torch.randint(
            noising.num_steps, (len(codes_BK),), generator=generator, device=codes_BK.device
        )
        noise_BK = draw_source(codes_BK, 1.0, generator=generator)
        if batch.present_NK is not None:
            noise_BK *= batch.present_NK
        return Paths(
            noising.points(codes_BK, noise_BK, step_B=step_B),
            noising.times(step_B),
            wanted_BK=noising.answers(
                self.config.prediction, codes_BK, noise_BK=noise_BK, step_B=step_B
            ),
            condition_BP=self.draw_conditions(batch, generator, learns=learns),
            present_BK=batch.present_NK,
        )

    def error(
        self, said_BK: torch.Tensor, paths: Paths, *, count: int | torch.Tensor
    ) -> torch.Tensor:
        """Return the squared error, and of learnt variances the weighed bound; see the base."""
        if self.config.variance != "learnt":
            return super().error(said_BK, paths, count=count)
        said_BK, place_BK = said_BK.chunk(2, dim=1)
        bound_BK = self._bound(said_BK.detach().float(), place_BK.float(), paths)
        if paths.present_BK is not None:
            bound_BK = bound_BK * paths.present_BK
        weight = _BOUND_WEIGHT * self.noising.num_steps
        return super().error(said_BK, paths, count=count) + weight * bound_BK.sum() / count

    def _bound(self, said_BK: torch.Tensor, place_BK: torch.Tensor, paths: Paths) -> torch.Tensor:
        """Return KL(true step back | learnt step back) in nats, [B, K]; 0 of the last step back.

        The last step back adds no noise, so its variance is of no use.
        """
        noising, x_BK, step_B = self.noising, paths.xt_BK, self.noising.steps(paths.t_B)
        found_BK, true_BK = (
            noising.codes(self.config.prediction, each_BK, x_BK=x_BK, step_B=step_B)
            for each_BK in (said_BK, paths.wanted_BK)
        )
        of_code_B1, small_B1, large_B1 = _at(
            step_B, noising.mean_of_code_S, noising.small_S, noising.large_S
        )
        is_last_B1 = step_B.unsqueeze(1) == 0
        small_B1 = small_B1.masked_fill(is_last_B1, 1.0)
        log_BK = torch.lerp(small_B1.log(), large_B1.log(), (place_BK + 1) / 2)
        shift_BK = (of_code_B1 * (true_BK - found_BK)).square()
        ratio_BK = (small_B1 + shift_BK) * (-log_BK).exp()
        bound_BK = 0.5 * (log_BK - small_B1.log() + ratio_BK - 1)
        return bound_BK.masked_fill(is_last_B1, 0.0)
