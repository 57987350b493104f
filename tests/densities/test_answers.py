"""Errors counted by what networks answer, against their formula for networks that are linear."""

import dataclasses

import pytest
import torch

from dwf.densities.answers import answer_error, share_after
from dwf.densities.base_config import AnswersConfig
from dwf.densities.config import FlowConfig
from dwf.densities.examples import Examples
from dwf.densities.flow import Flow
from dwf.densities.flow_matching import FlowMatching, draw_times, normal_velocity
from dwf.densities.paths import Paths
from dwf.errors import ConfigError
from dwf.run_folder import RunFolder
from dwf.settings import build
from tests.densities.coded import vector_codes
from tests.densities.test_flow import SMALL, fail_at, normal

ASKED = dataclasses.replace(SMALL, answers=AnswersConfig(share=0.6, after=0.5, images=7))
JACOBIAN = normal(3, 5, seed=9)


def ask(codes_RK, places_M):
    """Networks with three logits, linear in their numbers; images scale them."""
    return (1 + places_M)[None, :, None] * (codes_RK @ JACOBIAN.T)[:, None, :]


def paths(count, prediction, seed=0):
    """Points at random times, and what a perfect network would say."""
    x0, x1 = normal(count, 5, seed), normal(count, 5, seed + 1)
    t = torch.rand(count, generator=torch.manual_seed(seed)).clamp(max=0.9)
    xt = torch.lerp(x0, x1, t[:, None])
    wanted = {"velocity": x1 - x0, "target": x1}.get(prediction)
    if wanted is None:
        wanted = x1 - x0 - normal_velocity(xt, t[:, None], source_std=1.0, sigma=0.0)
    places = torch.rand(7, generator=torch.manual_seed(5))
    return Paths(xt, t, wanted_BK=wanted, condition_BP=None, present_BK=None, places_M=places)


def task(prediction="velocity"):
    config = dataclasses.replace(ASKED, prediction=prediction)
    made = FlowMatching(
        config, None, train=Examples(normal(40, 5)), val=Examples(normal(8, 5)), seed=0
    )
    made.ask = ask
    return made


@pytest.mark.parametrize("prediction", ["velocity", "target", "residual"])
def test_the_loss_is_that_of_the_formula(prediction):
    some = paths(64, prediction)
    error = 0.3 * normal(64, 5, seed=7)
    found = task(prediction).error(some.wanted_BK + error, some, count=error.numel())
    t = some.t_B.double()
    # To whatever the network says wrong, the code is moved by (1 - t) times as much, or as much.
    moved = error.double() * (1 if prediction == "target" else (1 - t)[:, None])
    unit = 1 if prediction == "target" else 1 - t
    change = (1 + some.places_M.double())[None, :, None] * (moved @ JACOBIAN.double().T)[:, None]
    squared = change.square().mean((1, 2)) / unit**2
    penalty = 18 * ((1 + squared / 9).sqrt() - 1)
    answers = penalty[t > 0.5].sum() / (64 * 0.5)
    wanted = 0.4 * error.double().square().mean() + 0.6 * answers
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_the_mean_over_parts_is_that_over_the_batch():
    some = paths(64, "velocity")
    said = some.wanted_BK + 0.3 * normal(64, 5, seed=7)
    made = task()
    whole = made.error(said, some, count=said.numel())
    parts = [slice(0, 16), slice(16, 64)]
    each = [made.error(said[p], some.take(p), count=said[p].numel()) for p in parts]
    assert (each[0] / 4 + 3 * each[1] / 4).item() == pytest.approx(whole.item(), rel=1e-5)


def test_what_no_answer_depends_on_is_learnt_by_the_rest_of_the_loss():
    some = paths(64, "velocity")
    blind = torch.linalg.svd(JACOBIAN).Vh[4].expand(64, 5)  # the answers do not change along it
    said = (some.wanted_BK + blind).requires_grad_()
    found = task().error(said, some, count=said.numel())
    assert found.item() == pytest.approx(0.4 / 5, rel=1e-4)
    (slope,) = torch.autograd.grad(found, said)
    torch.testing.assert_close(slope, 0.4 * 2 * blind / said.numel(), rtol=1e-3, atol=1e-6)


def test_far_errors_count_by_their_size_and_early_ones_not_at_all():
    some = paths(64, "velocity")
    losses = []
    for size in (1e3, 2e3):
        said = some.wanted_BK + size * normal(64, 5, seed=7)
        losses.append(
            answer_error(
                ask,
                some.xt_BK + (1 - some.t_B[:, None]) * said,
                true_BK=some.xt_BK + (1 - some.t_B[:, None]) * some.wanted_BK,
                left_B=1 - some.t_B,
                places_M=some.places_M,
                config=ASKED,
            ).item()
        )
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-2)
    early = dataclasses.replace(some, t_B=0.5 * some.t_B)
    unasked = dataclasses.replace(early, places_M=None)
    plain = task().error(said, unasked, count=said.numel())
    assert task().error(said, early, count=said.numel()).item() == pytest.approx(0.4 * plain.item())


@pytest.mark.parametrize(
    "settings",
    [{}, {"time": "beta"}, {"time": "logit_normal", "time_mean": 0.7, "time_std": 1.3}],
    ids=str,
)
def test_the_share_of_late_times_is_that_of_many_draws(settings):
    config = FlowConfig(**settings)
    times = draw_times(config, 200_000, generator=torch.Generator().manual_seed(0))
    for time in (0.0, 0.3, 0.75):
        drawn = (times > time).double().mean().item()
        assert share_after(config, time) == pytest.approx(drawn, abs=4e-3)


def test_codes_are_asked_in_their_own_units(tmp_path):
    """Of codes of deviation 5, standardised, networks are asked as the codes are."""
    config = dataclasses.replace(ASKED, standardise="per_dimension")
    seen, codes = [], vector_codes(5 * normal(40, 5) + 3)

    def watching(codes_RK, places_M):
        seen.append(codes_RK.detach())
        return ask(codes_RK, places_M)

    Flow(config).fit(codes, codes, run=RunFolder(tmp_path, config), ask=watching)
    true = torch.cat(seen[1::2])  # asked about what the network says, then about the codes
    nearest = (true[:, None] - codes.values).norm(dim=2).min(1).values
    assert len(true) > 20 and nearest.max() < 1e-4


def test_a_training_goes_on_to_the_same_bits_and_learns_otherwise(tmp_path, monkeypatch):
    codes = vector_codes(normal(40, 5))

    def fit(name, config=ASKED):
        flow = Flow(config)
        given = {} if config.answers is None else {"ask": ask}
        run = RunFolder(tmp_path / name, config)
        flow.fit(codes, vector_codes(normal(8, 5)), run=run, seed=3, **given)
        return flow

    whole = fit("whole")
    with monkeypatch.context() as patch:
        patch.setattr("dwf.densities.paths.mse_loss", fail_at(7))
        with pytest.raises(KeyboardInterrupt):
            fit("cut")
    plain = fit("plain", dataclasses.replace(ASKED, answers=None))
    pairs = zip(whole.module.parameters(), fit("cut").module.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    pairs = zip(whole.module.parameters(), plain.module.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"answers with stagger = 0, sigma = 0.1"):
        build(FlowConfig, {"answers": {}, "sigma": 0.1}, source="flow.yaml")
    with pytest.raises(ConfigError, match=r"answers\.after = 1\b"):
        build(FlowConfig, {"answers": {"after": 1}}, source="flow.yaml")
