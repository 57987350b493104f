"""Errors of a flow counted by what the very networks answer that they lead to.

`behaviour` has one metric for all networks; but what an error changes differs from one network to
another, and from unit to unit. Late on a path the code that it leads to is nearly known, so there a
network is decoded from the code that the flow says, x1' = x_t + (1 - t) v, and asked beside that of
the code itself:

    r^2 = E[(f(x1') - f(x1))^2] / ((1 - t)^2 s),

mean over training images and logits f. The difference of the codes is (1 - t) times the velocity's
error, so to first order r^2 is e^T J^T J e / s: the Gauss-Newton metric of this network. s is the
mean of the same for errors of deviation 1 in every number, so that the part is as large as the
plain loss. Early on, where many codes are still possible, the mean of their answers is not the
answer of their mean, and networks are not asked.

What is added is 2 d^2 (sqrt(1 + r^2 / d^2) - 1), r^2 of small errors, so that a code far off does
not rule a batch (Charbonnier's penalty; Barron, arXiv 1701.03077, eq. 1 with alpha 1).

Shape suffixes: B codes of a batch, R late ones, K numbers of a code, M images, C logits.
"""

import math
from collections.abc import Callable

import torch

from dwf.densities.config import FlowConfig

Ask = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Returns logits_RMC of the networks that codes_RK stand for, in units of sqrt(s), of places_M in
[0, 1) among the training images; float32, with a derivative."""

# Nearer to the code than this, differences of logits are rounding.
_LEAST_LEFT = 0.05
_FAR = 3.0
"""d: errors beyond it, a multiple of what errors of deviation 1 make, count by their size alone."""


def answer_error(
    ask: Ask,
    found_BK: torch.Tensor,
    *,
    true_BK: torch.Tensor,
    left_B: torch.Tensor,
    places_M: torch.Tensor,
    config: FlowConfig,
) -> torch.Tensor:
    """Return the error of codes by what their networks answer, a scalar.

    The mean over a batch's parts is that over the batch: codes that are not late count as 0, and
    the sum is over as many as are late on average.

    Args:
        ask: asks networks.
        found_BK: codes that the flow says.
        true_BK: codes that there are.
        left_B: 1 - t.
        places_M: which images.
        config: settings of the flow, with `answers`.
    """
    late_R = (left_B < 1 - config.answers.after).nonzero().squeeze(1)
    if not len(late_R):
        return found_BK.new_zeros(())
    # Autocast would round what is decoded, and the small differences of logits, to bf16.
    with torch.autocast(found_BK.device.type, enabled=False):
        logits_RMC = ask(found_BK[late_R].float(), places_M)
        with torch.no_grad():
            wanted_RMC = ask(true_BK[late_R].float(), places_M)
        # A target's error is that of the code itself, not (1 - t) times a velocity's.
        is_code = config.prediction == "target"
        left_R = torch.ones_like(left_B[late_R]) if is_code else left_B[late_R]
        squared_R = (logits_RMC - wanted_RMC).square().mean((1, 2))
        squared_R = squared_R / left_R.clamp_min(_LEAST_LEFT).square()
        penalty_R = 2 * _FAR**2 * ((1 + squared_R / _FAR**2).sqrt() - 1)
        return penalty_R.sum() / (len(found_BK) * share_after(config, config.answers.after))


def share_after(config: FlowConfig, time: float) -> float:
    """Return the share of training times above `time`."""
    if config.time == "uniform":
        return 1 - time
    if config.time == "beta":  # at most one of six uniform numbers is below; see `draw_times`
        return (1 - time) ** 6 + 6 * time * (1 - time) ** 5
    if time == 0:
        return 1.0
    normal = (math.log(time / (1 - time)) - config.time_mean) / config.time_std
    return math.erfc(normal / math.sqrt(2)) / 2
