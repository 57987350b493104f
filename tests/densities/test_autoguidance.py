"""Samples led away from what the network said when it had learnt less."""

import dataclasses

import pytest
import torch

from dwf.densities.base_config import AutoguidanceConfig
from dwf.densities.config import DiffusionConfig, DiffusionSolverConfig, FlowConfig
from dwf.densities.diffusion import Diffusion
from dwf.densities.flow import Flow
from dwf.densities.scaling import Scaling
from dwf.densities.solver import draw_noise
from dwf.errors import ConfigError
from dwf.run_folder import RunFolder, load_state
from dwf.settings import build
from tests.densities.coded import vector_codes
from tests.densities.test_flow import SMALL, fail_at, fit, normal

GUIDED = dataclasses.replace(SMALL, autoguidance=AutoguidanceConfig(after=0.5, weight=2.5))


def test_a_linear_flow_is_led_by_the_sum_of_its_matrices():
    """Of velocities A x and, younger, B x, the guided flow is e^(B + w (A - B)) x(0)."""
    own, young = 0.4 * normal(3, 3, seed=3), 0.4 * normal(3, 3, seed=4)
    flow = Flow(GUIDED)
    flow.prepare(vector_codes(normal(4, 3)).shape, Scaling(torch.zeros(1), torch.ones(1)), seed=0)
    flow.module, flow.younger = (lambda x, t, m=m: x @ m.T for m in (own, young))
    noise = draw_noise(20, 3, seed=3)
    for weight, given in ((2.5, {}), (1.0, {"autoguidance": 1.0}), (3.0, {"autoguidance": 3.0})):
        grown = torch.linalg.matrix_exp(young + weight * (own - young))
        drawn = flow.sample(20, seed=3, method="rk4", steps=100, **given).values
        torch.testing.assert_close(drawn, noise @ grown.T, rtol=1e-4, atol=1e-4)
    alone = flow.log_prob(vector_codes(noise))
    flow.younger = None  # a likelihood is of the network alone
    assert torch.equal(flow.log_prob(vector_codes(noise)), alone)


@pytest.mark.parametrize("since", [0.5, 0.75])
def test_led_late_a_flow_goes_its_own_way_first(since):
    """Until then e^(A s), from there e^((B + w (A - B)) (1 - s)); Euler's steps begin at s."""
    own, young = 0.4 * normal(3, 3, seed=3), 0.4 * normal(3, 3, seed=4)
    config = dataclasses.replace(GUIDED.autoguidance, since=since)
    flow = Flow(dataclasses.replace(GUIDED, autoguidance=config))
    flow.prepare(vector_codes(normal(4, 3)).shape, Scaling(torch.zeros(1), torch.ones(1)), seed=0)
    flow.module, flow.younger = (lambda x, t, m=m: x @ m.T for m in (own, young))
    led = young + 2.5 * (own - young)
    grown = torch.linalg.matrix_exp((1 - since) * led) @ torch.linalg.matrix_exp(since * own)
    drawn = flow.sample(20, seed=3, method="euler", steps=2000).values
    wanted = draw_noise(20, 3, seed=3) @ grown.T
    torch.testing.assert_close(drawn, wanted, rtol=1e-2, atol=3e-3)


def test_a_diffusion_is_led_to_the_code_beyond_its_own():
    solver = DiffusionSolverConfig(method="ddim", steps=5)
    config = DiffusionConfig(
        solver=solver, prediction="sample", autoguidance=AutoguidanceConfig(weight=3.0)
    )
    diffusion = Diffusion(config)
    scaling = Scaling(torch.zeros(1), torch.ones(1))
    diffusion.prepare(vector_codes(normal(4, 3)).shape, scaling, seed=0)
    own, young = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 0.0, 3.0])
    diffusion.module, diffusion.younger = (
        lambda x, t, code=code: code.expand_as(x) for code in (own, young)
    )
    wanted = (young + 3 * (own - young)).expand(4, 3)
    torch.testing.assert_close(diffusion.sample(4, seed=0).values, wanted)


def test_the_younger_self_is_the_network_after_so_many_steps(tmp_path):
    values = normal(40, 5)
    steady = dataclasses.replace(SMALL.training, schedule="constant")
    half = dataclasses.replace(SMALL, training=dataclasses.replace(steady, steps=6))
    short, _ = fit(tmp_path / "short", half, values=values)
    whole, _ = fit(tmp_path / "whole", dataclasses.replace(GUIDED, training=steady), values=values)
    assert_equal(whole.younger, short.module)
    differ = [
        not torch.equal(a, b)
        for a, b in zip(whole.younger.parameters(), whole.module.parameters(), strict=True)
    ]
    assert any(differ)
    whole.save(tmp_path / "saved")
    loaded = Flow.load(tmp_path / "saved")
    assert torch.equal(loaded.sample(6, seed=2).values, whole.sample(6, seed=2).values)
    plain = loaded.sample(6, seed=2, autoguidance=1.0).values
    assert not torch.equal(plain, loaded.sample(6, seed=2).values)
    assert (
        load_state(tmp_path / "saved" / "flow.pt")["younger"].keys()
        == dict(whole.module.state_dict()).keys()
    )


@pytest.mark.parametrize("call", [5, 9], ids=["before", "after"])
def test_a_stop_before_or_after_it_was_kept_changes_no_bit(tmp_path, monkeypatch, call):
    values = normal(40, 5)
    whole, _ = fit(tmp_path / "whole", GUIDED, values=values, seed=3)
    with monkeypatch.context() as patch:
        patch.setattr("dwf.densities.paths.mse_loss", fail_at(call))
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "cut", GUIDED, values=values, seed=3)
    resumed, _ = fit(tmp_path / "cut", GUIDED, values=values, seed=3)
    assert_equal(resumed.younger, whole.younger)
    assert_equal(resumed.module, whole.module)


def test_without_a_younger_self_it_is_refused(tmp_path):
    flow, _ = fit(tmp_path, SMALL, values=normal(40, 5))
    with pytest.raises(ConfigError, match=r"autoguidance = 2: this flow was fitted with density"):
        flow.sample(3, seed=0, autoguidance=2.0)
    assert torch.equal(flow.sample(3, 0, autoguidance=1.0).values, flow.sample(3, 0).values)


def test_networks_drawn_while_it_trains_are_its_own(tmp_path):
    """Before the younger self is kept there is none: looks are never led away from it."""
    training = dataclasses.replace(SMALL.training, sample_every=5, sample_count=3)
    config = dataclasses.replace(GUIDED, training=training)
    flow, seen = Flow(config), []

    def judge(codes):
        seen.append((flow.younger, codes.values.shape))
        return {"sample_accuracy": 0.5}

    codes = vector_codes(normal(32, 5))
    flow.fit(codes, vector_codes(normal(8, 5)), run=RunFolder(tmp_path, config), judge=judge)
    assert seen == [(None, (3, 5))] * 3 and flow.younger is not None


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"autoguidance with variance = 'learnt'"):
        build(DiffusionConfig, {"variance": "learnt", "autoguidance": {}}, source="diffusion.yaml")
    for after in (0, 1, 1.5):
        with pytest.raises(ConfigError, match=r"autoguidance\.after"):
            build(FlowConfig, {"autoguidance": {"after": after}}, source="flow.yaml")


def assert_equal(one, two):
    for mine, other in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, other)
