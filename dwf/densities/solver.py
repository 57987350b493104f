"""Solve a density's differential equation, and draw the noise it starts from.

Shape suffixes: B points, K numbers of a point.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torchdiffeq import odeint

from dwf.densities.config import SolverConfig
from dwf.errors import SolverFailed
from dwf.randomness import torch_stream

State = torch.Tensor | tuple[torch.Tensor, ...]
Watch = Callable[[float, torch.Tensor], None]
"""Function that is shown each state on the way: (time, x_BK)."""


def solve(
    velocity: Callable[[torch.Tensor, State], State],
    state: State,
    *,
    config: SolverConfig,
    start: float = 0.0,
    end: float = 1.0,
    spans: Sequence[tuple[float, float]] = (),
    watch: Watch | None = None,
) -> State:
    """Return the solution at `end` of d state / d time = velocity(time, state).

    Args:
        velocity: takes a scalar tensor of time and the state.
        state: a tensor, or a tuple of tensors, at `start`.
        config: method, and number of equal intervals or tolerances.
        start: first time.
        end: last time; may be the earlier one.
        spans: spans of time between which the velocity jumps, in order; each is solved by itself,
            by its share of the steps.
        watch: is shown the state, a tensor, before each step that is taken.

    Raises:
        SolverFailed: `dopri5` finds no step short enough.
    """
    for low, high in spans if start < end else reversed(spans):
        state = solve(
            _within(velocity, low, high),
            state,
            config=replace(config, steps=max(1, round(config.steps * (high - low)))),
            start=low if start < end else high,
            end=high if start < end else low,
            watch=watch,
        )
    if spans:
        return state
    first = state if isinstance(state, torch.Tensor) else state[0]
    times = torch.tensor([start, end], dtype=first.dtype, device=first.device)
    if config.method == "dopri5":
        # It would step over the end, where velocities were never learnt, and interpolate back.
        options = {"step_t": times[-1:]}
    else:
        options = {"grid_constructor": lambda func, y0, t: _equal_steps(t, config.steps)}
    tolerances = {"rtol": config.rtol, "atol": config.atol}
    slope = velocity if watch is None else _Watched(velocity, watch, is_adaptive=config.is_adaptive)
    try:
        solution = odeint(slope, state, times, method=config.method, options=options, **tolerances)
    except AssertionError as error:  # torchdiffeq's word for a step that cannot be short enough
        raise SolverFailed(
            f"{config.method} with rtol = {config.rtol:g}, atol = {config.atol:g}: {error}: the "
            "velocity is not finite, or the tolerances are below the rounding of float32; raise "
            "them, or choose rk4"
        ) from None
    return solution[-1] if isinstance(state, torch.Tensor) else tuple(s[-1] for s in solution)


def _within(velocity: Callable, low: float, high: float) -> Callable:
    """Return a velocity whose times lie inside a span, on this side of the jumps at its ends."""
    inset = 1e-6 * (high - low) + 1e-7  # above the rounding of float32
    return lambda time, state: velocity(time.clamp(low + inset, high - inset), state)


class _Watched:
    """A velocity with torchdiffeq's call before each step; of adaptive ones, each that it keeps."""

    def __init__(self, velocity: Callable, watch: Watch, *, is_adaptive: bool):
        self._velocity = velocity
        name = "callback_accept_step" if is_adaptive else "callback_step"
        setattr(self, name, lambda time, state, _: watch(float(time), state))

    def __call__(self, time: torch.Tensor, state: State) -> State:
        return self._velocity(time, state)


def _equal_steps(times: torch.Tensor, steps: int) -> torch.Tensor:
    first, last = times[0].item(), times[-1].item()
    return torch.linspace(first, last, steps + 1, dtype=times.dtype, device=times.device)


def draw_noise(count: int, num_features: int, *, seed: int, first: int = 0) -> torch.Tensor:
    """Return standard normal noise_BK of samples `first`, `first + 1`, ..., float32 on the CPU.

    Each sample has a stream of its own: it is the same whatever else is drawn with it.
    """
    rows = [
        torch.randn(num_features, generator=torch_stream(seed, "sample", first + i))
        for i in range(count)
    ]
    return torch.stack(rows) if rows else torch.empty(0, num_features)
