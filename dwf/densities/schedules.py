"""Noise schedules of a diffusion: how much of a code is left after each step, float64.

After step s a code x_0 has become x_s = sqrt(abar_s) x_0 + sqrt(1 - abar_s) eps, where abar_s is
the product of 1 - beta over the steps so far.

Sources: Ho et al., arXiv 2006.11239 (linear, quad, constant, warm-up, jsd; p-diff, arXiv
2402.13144, has them all); Nichol and Dhariwal, arXiv 2102.09672, eq. 17 (cosine); Xu et al., arXiv
2203.02923 (sigmoid); Lin et al., arXiv 2305.08891, algorithm 1 (zero signal at the last step).

Shape suffixes: S steps.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

_COSINE_OFFSET = 0.008
_LARGEST_BETA = 0.999


def _linear(low: float, high: float, steps: int) -> np.ndarray:
    return np.linspace(low, high, steps)


def _scaled_linear(low: float, high: float, steps: int) -> np.ndarray:
    return np.linspace(math.sqrt(low), math.sqrt(high), steps) ** 2


def _sigmoid(low: float, high: float, steps: int) -> np.ndarray:
    return low + (high - low) / (1 + np.exp(-np.linspace(-6, 6, steps)))


def _cosine(low: float, high: float, steps: int) -> np.ndarray:
    place = (np.arange(steps + 1) / steps + _COSINE_OFFSET) / (1 + _COSINE_OFFSET)
    left = np.cos(place * math.pi / 2) ** 2
    return np.minimum(1 - left[1:] / left[:-1], _LARGEST_BETA)


def _cosine_clipped(low: float, high: float, steps: int) -> np.ndarray:
    return _cosine(low, high, steps).clip(low, high)


def _warmed_up(low: float, high: float, steps: int, *, share: float) -> np.ndarray:
    rising = int(steps * share)
    return np.concatenate([np.linspace(low, high, rising), np.full(steps - rising, high)])


def _constant(low: float, high: float, steps: int) -> np.ndarray:
    return np.full(steps, high)


def _jsd(low: float, high: float, steps: int) -> np.ndarray:
    return 1 / np.arange(steps, 0, -1.0)


SCHEDULES: dict[str, Callable[[float, float, int], np.ndarray]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "quad": _scaled_linear,
    "cosine": _cosine,
    "cosine_clipped": _cosine_clipped,
    "sigmoid": _sigmoid,
    "warmup10": partial(_warmed_up, share=0.1),
    "warmup50": partial(_warmed_up, share=0.5),
    "constant": _constant,
    "jsd": _jsd,
}
"""Betas of the schedules that settings name: (beta_start, beta_end, steps) -> betas_S."""


def kept_of(betas_S: np.ndarray, *, zero_terminal_snr: bool = False) -> np.ndarray:
    """Return abar_S, the share of a code's variance that is kept after each step.

    Args:
        betas_S: variance of the noise that each step adds.
        zero_terminal_snr: shift and stretch sqrt(abar) so that nothing is left at the last step,
            and at the first as much as before.
    """
    kept_S = np.cumprod(1 - betas_S)
    if not zero_terminal_snr:
        return kept_S
    signal_S = np.sqrt(kept_S)
    shifted_S = signal_S - signal_S[-1]
    return (shifted_S * (signal_S[0] / shifted_S[0])) ** 2


def spaced_steps(of: int, count: int, *, spacing: str) -> np.ndarray:
    """Return the numbers of `count` of a diffusion's steps, rising, the last among them; int64.

    Args:
        of: steps of the diffusion.
        count: how many, at most `of`.
        spacing: `equal`; `quadratic`: closer to each other where little noise is left (arXiv
            2010.02502, appendix D.2), all different.
    """
    share_S = np.arange(1, count + 1) / count
    if spacing == "quadratic":
        share_S = share_S**2
    steps_S = np.round(share_S * of).astype(np.int64) - 1
    # Quadratic ones would begin with several of one number: each is raised to its place.
    return np.maximum(steps_S, np.arange(count))
