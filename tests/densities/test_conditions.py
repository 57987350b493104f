"""Flows told an accuracy: samples and likelihood against known Gaussians, guidance by formula."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from dwf.backbones.config import ResidualMLPConfig
from dwf.densities.conditions import Number
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.densities.flow import Flow
from dwf.errors import ConfigError
from dwf.run_folder import RunFolder
from dwf.training.config import LoopComputeConfig, LoopConfig
from tests.densities.coded import vector_codes

SMALL = FlowConfig(
    backbone=ResidualMLPConfig(width=16, depth=1, time_features=8),
    training=LoopConfig(
        steps=12,
        batch_size=8,
        ema=0.9,
        validate_every=5,
        compute=LoopComputeConfig(save_seconds=0, threads=1),
    ),
    solver=SolverConfig(method="heun2", steps=10),
    condition="val_accuracy",
)


def draw(count, seed=0):
    """Accuracies in [0.8, 1], and codes that are N(mean(accuracy), 0.3^2)."""
    generator = torch.Generator().manual_seed(seed)
    accuracy = 0.8 + 0.2 * torch.rand(count, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 2, generator=generator)
    return accuracy, vector_codes(means(accuracy) + 0.3 * noise)


def means(accuracy):
    return torch.stack([20 * (accuracy - 0.9), 3 - 20 * (accuracy - 0.8)], 1).float()


def fit(path, config, count=40, seed=3, **conditions):
    flow, (accuracy, codes), (val_accuracy, val) = Flow(config), draw(count), draw(10, 1)
    told = {"train_conditions": accuracy, "val_conditions": val_accuracy} | conditions
    conditions = {name: v if v is None else {"val_accuracy": v.numpy()} for name, v in told.items()}
    return flow, flow.fit(codes, val, run=RunFolder(path, config), seed=seed, **conditions)


def test_learns_a_distribution_for_each_condition(tmp_path):
    training = LoopConfig(
        steps=600,
        batch_size=256,
        learning_rate=3e-3,
        ema=0.99,
        validate_every=300,
        compute=LoopComputeConfig(threads=1),
    )
    backbone = ResidualMLPConfig(width=48, depth=2, time_features=16)
    config = dataclasses.replace(SMALL, backbone=backbone, training=training)
    flow, _ = fit(tmp_path, config, count=4000)
    for accuracy in (0.82, 0.9, 0.98):
        drawn = flow.sample(500, seed=1, condition=accuracy).values
        wanted = means(torch.tensor([accuracy], dtype=torch.float64))[0]
        torch.testing.assert_close(drawn.mean(0), wanted, rtol=0, atol=0.15)
        assert drawn.std(0).tolist() == pytest.approx([0.3, 0.3], abs=0.12)
        some = vector_codes(wanted + 0.3 * torch.randn(200, 2))
        exact = torch.distributions.Normal(wanted, 0.3).log_prob(some.values).sum(1)
        assert (
            flow.log_prob(some, condition=accuracy, method="midpoint", steps=20) - exact
        ).mean().abs() < 0.35
    # Told nothing, it draws from all: the first number is uniform on [-2, 2] plus noise.
    drawn = flow.sample(1000, seed=1).values
    wanted = (4**2 / 12 + 0.3**2) ** 0.5
    assert drawn.std(0).tolist() == pytest.approx([wanted, wanted], rel=0.12)


class Told(nn.Module):
    """The velocity 2 x + t + condition, or 5 where there is none."""

    def forward(self, x_BK, t_B, condition_BP=None):
        told = 5.0 if condition_BP is None else condition_BP
        return 2 * x_BK + t_B.unsqueeze(1) + told


@pytest.mark.parametrize("guidance", [0.5, 1.0, 3.0])
def test_guidance_is_the_formula(tmp_path, guidance):
    flow, _ = fit(tmp_path, SMALL)
    flow.module = Told()
    calls = []
    flow.module.register_forward_hook(lambda *_: calls.append(1))
    flow.sample(3, seed=0, condition=0.9, guidance=guidance, method="euler", steps=7)
    assert len(calls) == (7 if guidance == 1 else 14)
    # Solved by hand: the guided constant enters as any other.
    drawn = flow.sample(3, seed=0, condition=0.9, guidance=guidance, method="euler", steps=1)
    noise = flow.scaling.apply(
        flow.sample(3, seed=0, condition=0.9, method="euler", steps=1).values
    )
    told = flow.ask(0.9).rows(0, 1).item()
    noise = (noise - told) / 3
    wanted = flow.scaling.undo(3 * noise + 5 + guidance * (told - 5))
    torch.testing.assert_close(drawn.values, wanted, rtol=1e-4, atol=1e-4)


def test_networks_without_a_condition_are_learnt_without(tmp_path):
    accuracy, _ = draw(40)
    accuracy[::3] = math.nan
    flow, outcome = fit(tmp_path, SMALL, train_conditions=accuracy, val_conditions=None)
    known = accuracy[~accuracy.isnan()]
    (number,) = flow.conditions.each
    assert (number.low, number.high) == (known.min().item(), known.max().item())
    assert math.isfinite(outcome.val_loss)
    assert flow.sample(3, seed=0, condition=0.9).values.isfinite().all()


def test_resume_is_bitwise_equal_and_saved_is_loaded(tmp_path, monkeypatch):
    from torch.nn.functional import mse_loss

    whole, outcome = fit(tmp_path / "whole", SMALL)
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return mse_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("dwf.densities.paths.mse_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "cut", SMALL)
    resumed, again = fit(tmp_path / "cut", SMALL)
    assert again == outcome
    states = whole.module.state_dict(), resumed.module.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    resumed.save(tmp_path / "saved")
    loaded, asked = Flow.load(tmp_path / "saved"), {"condition": 0.85, "guidance": 2.0}
    wanted = whole.sample(4, seed=1, **asked).values
    assert torch.equal(loaded.sample(4, seed=1, **asked).values, wanted)
    assert not torch.equal(loaded.sample(4, seed=1, condition=0.95).values, wanted)
    assert loaded.conditions == whole.conditions


def test_what_was_not_learnt_is_refused(tmp_path):
    flow, _ = fit(tmp_path / "told", SMALL)
    (number,) = flow.conditions.each
    low, high = number.low, number.high
    for value in (low - 1e-5, high + 1e-5, math.nan):
        with pytest.raises(
            ConfigError, match=r"condition = .*val_accuracy.*lies in \[0\.821947, 0\.994011\]"
        ):
            flow.sample(1, seed=0, condition=value)
    assert flow.sample(1, seed=0, condition=high).values.isfinite().all()
    with pytest.raises(ConfigError, match="guidance = 2 without a condition"):
        flow.sample(1, seed=0, guidance=2.0)
    flow.config = dataclasses.replace(SMALL, drop_condition=0.0)
    for asked in ({}, {"condition": 0.9, "guidance": 2.0}):
        with pytest.raises(ConfigError, match="fitted with drop_condition = 0"):
            flow.sample(1, seed=0, **asked)
    with pytest.raises(ConfigError, match="fitted with drop_condition = 0"):
        flow.log_prob(draw(2)[1])
    plain = dataclasses.replace(SMALL, condition="none")
    flow, _ = fit(tmp_path / "untold", plain)
    with pytest.raises(
        ConfigError, match=r"knows no conditions.*density\.condition = val_accuracy"
    ):
        flow.sample(1, seed=0, condition=0.9)
    for nothing in (None, torch.full((40,), math.nan)):
        with pytest.raises(ConfigError, match="no training network has one: train the zoo with"):
            fit(tmp_path / "nothing", SMALL, train_conditions=nothing)
    with pytest.raises(ConfigError, match=r"every training network has the same, 0\.9, so that"):
        fit(tmp_path / "one", SMALL, train_conditions=torch.full((40,), 0.9))


def test_conditions_are_standardised():
    values = torch.tensor([0.5, 0.7, math.nan, 0.9, math.inf], dtype=torch.float64)
    number = Number.fit("val_accuracy", values)
    deviation = (0.08 / 3) ** 0.5
    assert (number.mean, number.deviation) == pytest.approx((0.7, deviation))
    found = number.encode(values).squeeze(1)
    wanted = torch.tensor([-0.2 / deviation, 0, math.nan, 0.2 / deviation, math.nan])
    torch.testing.assert_close(found, wanted, equal_nan=True, rtol=1e-5, atol=1e-6)


def test_the_range_is_asked_for_as_it_is_printed():
    number = Number.fit("val_accuracy", torch.tensor([0.5, 0.9], dtype=torch.float32))
    assert number.high != 0.9  # float32's is another number
    number.understand("0.9")
    with pytest.raises(ConfigError, match=r"lies in \[0\.5, 0\.9\]"):
        number.understand("0.90001")
