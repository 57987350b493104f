"""Noise schedules against formulas written out by hand, and against diffusers' own."""

import math
from typing import get_args, get_type_hints

import numpy as np
import pytest

from dwf.densities.config import DiffusionConfig
from dwf.densities.schedules import SCHEDULES, kept_of, spaced_steps
from dwf.settings import build


def betas(name, steps, low=1e-4, high=0.02):
    return SCHEDULES[name](low, high, steps)


def by_hand(name, s, steps, low, high):
    """Beta of step s in 1 ... steps."""
    part = (s - 1) / (steps - 1)
    if name == "linear":
        return low + part * (high - low)
    if name in ("quad", "scaled_linear"):
        return (low**0.5 + part * (high**0.5 - low**0.5)) ** 2
    if name == "sigmoid":
        return low + (high - low) / (1 + math.exp(6 - 12 * part))
    if name == "constant":
        return high
    if name == "jsd":
        return 1 / (steps - s + 1)
    if name.startswith("warmup"):
        rising = steps * int(name.removeprefix("warmup")) // 100
        return high if s > rising else low + (s - 1) / (rising - 1) * (high - low)

    def left(t):
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    beta = min(0.999, 1 - left(s) / left(s - 1))
    return min(max(beta, low), high) if name == "cosine_clipped" else beta


def test_settings_name_each_of_them():
    names = get_args(get_type_hints(DiffusionConfig, include_extras=True)["schedule"])
    assert names == tuple(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [20, 1000])
def test_each_is_its_formula(name, steps):
    wanted = [by_hand(name, s, steps, 1e-3, 0.1) for s in range(1, steps + 1)]
    np.testing.assert_allclose(betas(name, steps, 1e-3, 0.1), wanted, rtol=1e-9)


def test_those_that_diffusers_has_are_its_own():
    from diffusers import DDPMScheduler
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    theirs = {"cosine": "squaredcos_cap_v2"}
    for name in ("linear", "scaled_linear", "sigmoid", "cosine"):
        scheduler = DDPMScheduler(500, beta_schedule=theirs.get(name, name))
        np.testing.assert_allclose(
            betas(name, 500), scheduler.betas.numpy(), rtol=2e-3 if name == "cosine" else 1e-4
        )
    stretched = 1 - rescale_zero_terminal_snr(DDPMScheduler(500).betas)
    found = kept_of(betas("linear", 500), zero_terminal_snr=True)
    np.testing.assert_allclose(found, stretched.cumprod(0).numpy(), atol=1e-5)
    assert found[-1] == 0 and found[0] == pytest.approx(1 - 1e-4)


def test_the_signal_left_is_known():
    assert DiffusionConfig().signal_left == pytest.approx(0.00635, rel=1e-2)  # of Ho et al.
    assert DiffusionConfig(schedule="jsd", prediction="velocity").signal_left == 0
    # p-diff's ablation of 10 steps, VAE-Diffusion's of 500.
    few = {"diffusion_steps": 10, "most_signal": 1.0, "solver": {"steps": 10}}
    assert build(DiffusionConfig, few, source="t").signal_left == pytest.approx(0.90**0.5, abs=0.01)
    vae = DiffusionConfig(schedule="cosine_clipped", diffusion_steps=500)
    assert vae.signal_left == pytest.approx(0.11, abs=0.01)


@pytest.mark.parametrize("spacing", ["equal", "quadratic"])
@pytest.mark.parametrize(("of", "count"), [(1000, 60), (1000, 1000), (10, 7), (1000, 1), (37, 36)])
def test_steps_rise_to_the_last(spacing, of, count):
    steps = spaced_steps(of, count, spacing=spacing)
    assert len(steps) == count and steps[-1] == of - 1 and steps[0] >= 0
    assert (np.diff(steps) > 0).all()
    if spacing == "equal":
        assert count == 1 or np.ptp(np.diff(steps)) <= 1
    elif count == 60:
        wanted = [round(1000 * (i / 60) ** 2) - 1 for i in range(20, 61)]
        assert steps[19:].tolist() == wanted


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"diffusion_steps": 100}, r"a part of 0.6 of a code is left .* above most_signal = 0.2"),
        (
            {"schedule": "jsd"},
            r"prediction = 'noise' with schedule = 'jsd'.* choose the prediction",
        ),
        ({"zero_terminal_snr": True}, r"zero_terminal_snr = true: a part of 0 of a code is left"),
        (
            {"schedule": "cosine", "beta_end": 0.1},
            r"beta_end = 0.1: no effect, as schedule = cosine",
        ),
        ({"beta_start": 0.5}, r"beta_start = 0.5 is above beta_end = 0.02"),
        ({"diffusion_steps": 20, "beta_end": 0.5}, r"solver.steps = 50: .* diffusion_steps = 20"),
        ({"drop_condition": 0.5}, r"drop_condition = 0.5: no effect"),
        ({"behaviour": 0.5}, r"behaviour = 0.5 measures tokens"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        DiffusionConfig(**settings)
