"""The log density of a continuous normalising flow.

Source: Chen et al., arXiv 1806.07366, eq. 8 (instantaneous change of variables); Grathwohl et al.,
arXiv 1810.01367, section 3.1 (Hutchinson's estimate).

Shape suffixes: B points, K numbers of a point, S random signs.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dwf.densities.config import SolverConfig
from dwf.densities.solver import solve

Velocity = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(x_BK, time, present_BK) -> velocity_BK."""


def log_density(
    velocity: Velocity,
    x_BK: torch.Tensor,
    *,
    settings: SolverConfig,
    source_std: float,
    spans: Sequence[tuple[float, float]] = (),
    present_BK: torch.Tensor | None = None,
    signs_SBK: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the log density of points under the flow from N(0, source_std^2), in nats, [B].

    Args:
        velocity: of the flow.
        x_BK: points, 0 where one has no number.
        settings: of the solver.
        source_std: deviation of the source.
        spans: spans of time between which the velocity jumps.
        present_BK: which numbers each point has; the density is on these. None: all.
        signs_SBK: random signs of an estimate of the divergence; None: it is exact.
    """
    if signs_SBK is not None and present_BK is not None:
        signs_SBK = signs_SBK * present_BK

    def rates(t: torch.Tensor, state: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        if signs_SBK is None:
            return _exact(velocity, state[0], t, present_BK)
        return _estimated(velocity, state[0], t, present_BK, signs_SBK)

    # Attention's fused kernels know no vmap: it would call them once for each row.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        start = (x_BK, x_BK.new_zeros(len(x_BK)))
        x0_BK, change_B = solve(rates, start, config=settings, start=1.0, end=0.0, spans=spans)
    variance = source_std**2
    log_source_BK = -0.5 * (x0_BK.square() / variance + math.log(2 * math.pi * variance))
    if present_BK is not None:
        log_source_BK = log_source_BK * present_BK
    return log_source_BK.sum(1) + change_B


def _exact(
    velocity: Velocity, x_BK: torch.Tensor, t: torch.Tensor, present_BK: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (velocity_BK, divergence_B) by the whole Jacobian."""

    def one(x_K: torch.Tensor, present_K: torch.Tensor | None) -> tuple:
        present = None if present_K is None else present_K.unsqueeze(0)
        v_K = velocity(x_K.unsqueeze(0), t, present).squeeze(0)
        return v_K, v_K

    in_dims = (0, None if present_BK is None else 0)
    jacobian = torch.func.vmap(torch.func.jacrev(one, has_aux=True), in_dims)
    jacobian_BKK, v_BK = jacobian(x_BK, present_BK)
    diagonal_BK = jacobian_BKK.diagonal(dim1=1, dim2=2)
    if present_BK is not None:
        diagonal_BK = diagonal_BK * present_BK
    return v_BK, diagonal_BK.sum(1)


def _estimated(
    velocity: Velocity,
    x_BK: torch.Tensor,
    t: torch.Tensor,
    present_BK: torch.Tensor | None,
    signs_SBK: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (velocity_BK, divergence_B) by the mean of s'Js over random signs s."""
    v_BK, pull = torch.func.vjp(lambda x: velocity(x, t, present_BK), x_BK)
    pulled = torch.func.vmap(lambda sign_BK: pull(sign_BK)[0])(signs_SBK)
    return v_BK, (pulled * signs_SBK).sum(2).mean(0)
