"""Solvers against an equation whose solution is known: each converges at its order."""

import math

import pytest
import torch

from dwf.densities.config import SolverConfig
from dwf.densities.solver import draw_noise, solve
from dwf.errors import SolverFailed

ORDERS = {"euler": 1, "midpoint": 2, "heun2": 2, "rk4": 4}


def error(method: str, steps: int) -> float:
    """Of dx/dt = -2 t x^2, whose solution is x(0) / (1 + x(0) t^2)."""
    x0 = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    config = SolverConfig(method=method, steps=steps, rtol=1e-9, atol=1e-9)
    x1 = solve(lambda t, x: -2 * t * x**2, x0, config=config)
    return (x1 - x0 / (1 + x0)).abs().max().item()


@pytest.mark.parametrize("method", ORDERS)
def test_solvers_converge_at_their_order(method):
    order = math.log2(error(method, 60) / error(method, 120))
    assert order == pytest.approx(ORDERS[method], abs=0.25)


def test_dopri5_keeps_its_tolerance_and_stays_within_the_times():
    assert error("dopri5", 1) < 1e-8
    seen = []
    solve(lambda t, x: seen.append(t.item()) or x, torch.ones(1, 1), config=SolverConfig())
    assert min(seen) >= 0
    assert max(seen) <= 1


@pytest.mark.parametrize("steps", [1, 3, 49, 99])
def test_steps_are_intervals(steps):
    seen = []
    config = SolverConfig(method="euler", steps=steps)
    solve(lambda t, x: seen.append(t.item()) or x, torch.ones(1, 1), config=config)
    assert seen == pytest.approx([i / steps for i in range(steps)])


def test_backwards_undoes_forwards():
    config = SolverConfig(method="rk4", steps=50)
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there = solve(lambda t, x: torch.sin(x + t), x, config=config)
    back = solve(lambda t, x: torch.sin(x + t), there, config=config, start=1.0, end=0.0)
    torch.testing.assert_close(back, x, atol=1e-6, rtol=0)


def test_a_sample_is_the_same_in_any_company():
    many = draw_noise(10, 7, seed=3)
    assert torch.equal(draw_noise(4, 7, seed=3), many[:4])
    assert torch.equal(draw_noise(2, 7, seed=3, first=5), many[5:7])
    assert not torch.equal(draw_noise(10, 7, seed=4), many)
    assert draw_noise(0, 7, seed=3).shape == (0, 7)


def test_a_velocity_that_is_not_finite_is_said():
    with pytest.raises(SolverFailed, match=r"dopri5 with rtol = 0\.0001.*not finite.*choose rk4"):
        solve(lambda t, x: x * float("nan"), torch.ones(1, 1), config=SolverConfig())


@pytest.mark.parametrize("method", [*ORDERS, "dopri5"])
def test_states_that_are_shown_lie_on_the_solution_and_change_nothing(method):
    shown, x0 = [], torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    config = SolverConfig(method=method, steps=400, rtol=1e-8, atol=1e-8)

    def slope(t, x):
        return -2 * t * x**2

    x1 = solve(slope, x0, config=config, watch=lambda t, x: shown.append((t, x)))
    assert torch.equal(x1, solve(slope, x0, config=config))
    times = [t for t, _ in shown]
    assert times[0] == 0 and times == sorted(set(times)) and times[-1] < 1
    assert method == "dopri5" or len(times) == 400
    allowed = 2e-2 if method == "euler" else 1e-4
    for t, x in shown:
        torch.testing.assert_close(x, x0 / (1 + x0 * t**2), atol=allowed, rtol=0)
