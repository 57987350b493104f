"""Noise taken away step by step, by diffusers' schedulers: DDPM, DDIM, DPM-Solver++.

They are given predicted codes, whatever the network predicts. Of fewer steps than the diffusion
has, they are given a schedule of these steps alone, so any spacing does for each of them.

Shape suffixes: B codes of a chunk, K numbers of a code, S steps.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dwf.densities.config import DiffusionSolverConfig
from dwf.densities.schedules import spaced_steps

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

Predict = Callable[[torch.Tensor, int], torch.Tensor]
"""Function (x_BK, step) -> codes_BK; with learnt variances, [B, 2 K] with their places."""


def denoise(
    predict: Predict,
    noise_BK: torch.Tensor,
    *,
    kept_S: np.ndarray,
    config: DiffusionSolverConfig,
    variance: str,
    streams: Callable[[], list[torch.Generator]],
) -> torch.Tensor:
    """Return the codes that noise becomes, [B, K].

    Args:
        predict: takes points and their step, from 0, and returns the codes in them.
        noise_BK: standard normal, float32.
        kept_S: abar of each step of the diffusion.
        config: method, steps and their spacing.
        variance: of a step of `ddpm`: `fixed_small`, `fixed_large` or `learnt`.
        streams: returns a generator for each sample, where a method draws on the way.
    """
    steps_S = spaced_steps(len(kept_S), config.steps, spacing=config.spacing)
    scheduler, more = _scheduler(kept_S[steps_S], config, variance)
    scheduler.set_timesteps(len(steps_S))
    if config.method == "ddpm" or (config.method == "ddim" and config.eta > 0):
        more["generator"] = streams()
    x_BK = noise_BK
    for place in scheduler.timesteps.tolist():
        said_BK = predict(x_BK, int(steps_S[place]))
        if config.method != "ddpm":  # the others draw without, or with `eta`
            said_BK = said_BK[:, : x_BK.shape[1]]
        x_BK = scheduler.step(said_BK, place, x_BK, return_dict=False, **more)[0]
    return x_BK


def _scheduler(
    kept_S: np.ndarray,
    config: DiffusionSolverConfig,
    variance: str,
) -> tuple["SchedulerMixin", dict[str, Any]]:
    """Return diffusers' scheduler over all of some steps, and what its `step` is told."""
    # Three to four seconds.
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    betas_S = 1 - kept_S / np.concatenate([[1.0], kept_S[:-1]])
    settings = {
        "num_train_timesteps": len(kept_S),
        "trained_betas": betas_S,
        "prediction_type": "sample",
        "timestep_spacing": "trailing",
    }
    if config.method == "ddpm":
        kind = "learned_range" if variance == "learnt" else variance
        return DDPMScheduler(**settings, clip_sample=False, variance_type=kind), {}
    if config.method == "ddim":
        return DDIMScheduler(**settings, clip_sample=False), {"eta": config.eta}
    # Where nothing is left, or so little that a beta in float32 is 1, it puts 2^-24 for the last
    # abar, whose logarithm it needs.
    ends_in_noise = bool(np.float32(betas_S[-1]) == 1)
    return DPMSolverMultistepScheduler(**settings, rescale_betas_zero_snr=ends_in_noise), {}
