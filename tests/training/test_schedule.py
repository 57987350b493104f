"""Learning rates of generators against torch's own schedulers."""

import pytest
import torch

from dwf.training.config import LoopConfig
from dwf.training.schedule import rate_at


def torch_rates(schedule, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    scheduler = schedule(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs_annealing():
    config = LoopConfig(steps=50, learning_rate=0.01, minimum_rate=1e-6, schedule="cosine")
    wanted = torch_rates(
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=50, eta_min=1e-6), 50
    )
    assert [rate_at(step, config) for step in range(50)] == pytest.approx(wanted)


def test_one_cycle_is_torchs():
    final = 0.01 / 25 / 1e4
    config = LoopConfig(steps=50, learning_rate=0.01, minimum_rate=final, schedule="one_cycle")
    wanted = torch_rates(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.01, total_steps=50), 50
    )
    assert [rate_at(step, config) for step in range(50)] == pytest.approx(wanted)


def test_step_is_torchs():
    config = LoopConfig(steps=50, learning_rate=0.01, schedule="step", step_size=7, gamma=0.5)
    wanted = torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=7, gamma=0.5), 50)
    assert [rate_at(step, config) for step in range(50)] == pytest.approx(wanted)


@pytest.mark.parametrize("settings", [{"schedule": "step"}, {"step_size": 5}])
def test_a_step_size_goes_with_its_schedule_alone(settings):
    with pytest.raises(
        ValueError, match=r"schedule = step needs step_size|step_size = 5: no effect"
    ):
        LoopConfig(**settings)


def test_warm_up_is_linear_and_then_cosine():
    config = LoopConfig(steps=20, learning_rate=1.0, warm_up=4)
    assert [rate_at(step, config) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rate_at(12, config) == pytest.approx(0.5)


@pytest.mark.parametrize("warm_up", [0, 1])
def test_short_runs_have_rates(warm_up):
    for schedule in ("constant", "cosine", "one_cycle"):
        config = LoopConfig(steps=2, warm_up=warm_up, schedule=schedule)
        assert all(0 <= rate_at(step, config) <= 1e-3 for step in range(2))


def test_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warm_up = 10 must be below steps = 10"):
        LoopConfig(steps=10, warm_up=10)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "step", "constant"])
def test_fewer_steps_take_the_same_course(schedule):
    """At the same share of the steps the rate is the same, warm-up and falls among them."""
    own = {"warm_up": 100, "step_size": 250} if schedule == "step" else {"warm_up": 100}
    config = LoopConfig(steps=1000, schedule=schedule, validate_every=100, sample_every=300, **own)
    fewer = config.with_steps(200)
    assert fewer.steps == 200 and fewer.validate_every == 40 and fewer.sample_every == 120
    for share in (0.05, 0.1, 0.2, 0.49, 0.51, 0.9):
        wanted = rate_at(round(1000 * share), config)
        assert rate_at(round(200 * share), fewer) == pytest.approx(wanted, rel=0.08)


def test_of_very_few_steps_all_settings_still_go_together():
    config = LoopConfig(steps=10_000, warm_up=500, validate_every=10, sample_every=40)
    for steps in (1, 2, 7, 99):
        fewer = config.with_steps(steps)
        assert fewer.steps == steps > fewer.warm_up and 1 <= fewer.validate_every <= 10
    assert config.with_steps(10_000) == config
