"""A diffusion against closed forms: exact networks of Gaussian codes, and DDPM's moments by hand.

Of codes N(m, c^2 I), points after step s are normal too, and what a network would learn to answer
is linear in them. Where it answers that, samplers give known codes.
"""

import dataclasses
import logging
import math

import numpy as np
import pytest
import torch
from torch import nn

from dwf.backbones.config import ResidualMLPConfig, TransformerConfig
from dwf.codecs.codes import CodeShape
from dwf.densities.conditions import Conditions, Number
from dwf.densities.config import DiffusionConfig, DiffusionSolverConfig
from dwf.densities.denoising import Denoising, Noising, WithVariance
from dwf.densities.diffusion import Diffusion
from dwf.densities.examples import Examples
from dwf.densities.scaling import Scaling
from dwf.densities.solver import draw_noise
from dwf.errors import ConfigError, TooFewNetworks
from dwf.run_folder import RunFolder
from dwf.training.config import LoopComputeConfig, LoopConfig
from tests.densities.coded import vector_codes

TRAINING = LoopConfig(
    steps=8,
    batch_size=8,
    ema=0.9,
    validate_every=4,
    compute=LoopComputeConfig(threads=1, device="cpu", save_seconds=0),
)
SMALL = DiffusionConfig(
    backbone=ResidualMLPConfig(width=16, depth=1, time_features=8),
    training=TRAINING,
    solver=DiffusionSolverConfig("ddim", steps=10),
    standardise="none",
)
MEAN, STD = 0.7, 0.4
PREDICTIONS = ("noise", "sample", "previous", "velocity")


def replace(config=SMALL, method=None, steps=None, **settings):
    if method is not None:
        steps = steps or config.solver.steps
        settings["solver"] = dataclasses.replace(config.solver, method=method, steps=steps)
    return dataclasses.replace(config, **settings)


def codes(count, size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return vector_codes(MEAN + STD * torch.randn(count, size, generator=generator))


def fit(path, config, count=40, **told):
    density = Diffusion(config)
    return density, density.fit(
        codes(count), codes(10, seed=1), run=RunFolder(path, config), seed=3, **told
    )


class Exact(nn.Module):
    """What a network would answer of codes N(mean, std^2 I): the expectation given the point."""

    def __init__(self, config, mean=MEAN, std=STD):
        super().__init__()
        self.noising = Noising(config.kept_S, torch.device("cpu"))
        self.kept = torch.from_numpy(config.kept_S)
        self.prediction, self.mean, self.std = config.prediction, mean, std

    def forward(self, x_BK, t_B, condition_BP=None):
        step_B = self.noising.steps(t_B)
        kept = self.kept[step_B].unsqueeze(1)
        mean = self.mean if condition_BP is None else condition_BP
        gain = kept.sqrt() * self.std**2 / (kept * self.std**2 + 1 - kept)
        code_BK = mean + gain * (x_BK.double() - kept.sqrt() * mean)
        noise_BK = (x_BK.double() - kept.sqrt() * code_BK) / (1 - kept).sqrt()
        return self.noising.answers(
            self.prediction, code_BK.float(), noise_BK=noise_BK.float(), step_B=step_B
        )


def exact(config, size=4, **known):
    """A diffusion whose network knows the codes."""
    density = Diffusion(config)
    density.prepare(codes(1, size).shape, Scaling(torch.zeros(()), torch.ones(())), seed=0)
    density.module = Exact(config, **known)
    return density


# --- what is learnt ---------------------------------------------------------------------------


def test_points_and_answers_are_diffusers():
    from diffusers import DDPMScheduler

    config = replace(schedule="scaled_linear")
    scheduler, noising = (
        DDPMScheduler(beta_schedule="scaled_linear"),
        Noising(config.kept_S, torch.device("cpu")),
    )
    code, noise = torch.randn(6, 3), torch.randn(6, 3)
    step = torch.tensor([0, 1, 10, 300, 800, 999])
    points = noising.points(code, noise, step_B=step)
    torch.testing.assert_close(points, scheduler.add_noise(code, noise, step), rtol=1e-4, atol=1e-4)
    velocity = noising.answers("velocity", code, noise_BK=noise, step_B=step)
    torch.testing.assert_close(
        velocity, scheduler.get_velocity(code, noise, step), rtol=1e-4, atol=1e-4
    )
    # The mean of the point before, which DDPM steps to where it is told the code and adds nothing.
    previous = noising.answers("previous", code, noise_BK=noise, step_B=step)
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", prediction_type="sample", clip_sample=False
    )
    for i in range(6):
        t = int(step[i])
        once = torch.Generator().manual_seed(0)
        drawn = scheduler.step(code[i : i + 1], t, points[i : i + 1], generator=once).prev_sample
        noise_i = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
        added = scheduler._get_variance(t) ** 0.5 * noise_i if t else 0
        torch.testing.assert_close(drawn - added, previous[i : i + 1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_each_answer_gives_the_code_again(prediction):
    noising = Noising(SMALL.kept_S, torch.device("cpu"))
    code, noise = torch.randn(50, 3), torch.randn(50, 3)
    step = torch.arange(0, 1000, 20)
    points = noising.points(code, noise, step_B=step)
    said = noising.answers(prediction, code, noise_BK=noise, step_B=step)
    found = noising.codes(prediction, said, x_BK=points, step_B=step)
    torch.testing.assert_close(found, code, rtol=1e-2, atol=1e-2)
    assert torch.equal(noising.steps(noising.times(step)), step)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_of_an_exact_network_is_what_cannot_be_known(prediction):
    config = replace(prediction=prediction)
    kept = config.kept_S
    unknown = STD**2 * (1 - kept) / (kept * STD**2 + 1 - kept)  # Var(x_0 | x_s)
    before = np.concatenate([[1.0], kept[:-1]])
    factor = {
        "noise": kept / (1 - kept),
        "sample": np.ones_like(kept),
        "previous": before * (1 - kept / before) ** 2 / (1 - kept) ** 2,
        "velocity": 1 / (1 - kept),
    }[prediction]
    wanted = (unknown * factor).mean()
    assert exact(config).loss(codes(40_000), 1) == pytest.approx(wanted, rel=0.05)


def test_a_network_learns_it(tmp_path):
    training = dataclasses.replace(
        TRAINING, steps=300, batch_size=128, learning_rate=5e-3, validate_every=300, ema=0.98
    )
    config = replace(training=training, prediction="velocity", standardise="per_dimension")
    density, outcome = fit(tmp_path, config, count=2000)
    drawn = density.sample(800, seed=1, steps=20).values
    assert drawn.mean(0).tolist() == pytest.approx(4 * [MEAN], abs=0.06)
    assert drawn.std(0).tolist() == pytest.approx(4 * [STD], rel=0.12)
    assert outcome.steps == 300 and math.isfinite(outcome.val_loss)


# --- how samples are drawn --------------------------------------------------------------------


def limit(config):
    """Where DDIM without chance leads noise of Gaussian codes, in the limit of many steps.

    Its differential equation keeps the place among the points' normals: x = m + c noise, but for
    the signal that noise lacks at the last step.
    """
    last = config.kept_S[-1]
    scale = STD / math.sqrt(last * STD**2 + 1 - last)
    return lambda noise: MEAN + scale * (noise - math.sqrt(last) * MEAN)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    ("method", "steps", "tolerance"), [("ddim", 500, 0.02), ("dpm_solver", 50, 0.005)]
)
def test_paths_without_chance_lead_where_the_equation_says(prediction, method, steps, tolerance):
    config = replace(method=method, steps=steps, prediction=prediction)
    found = exact(config).sample(50, seed=2).values
    wanted = limit(config)(draw_noise(50, 4, seed=2))
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


def test_few_steps_of_the_solver_are_nearer_than_ddims():
    noise = draw_noise(200, 4, seed=2)
    errors = {}
    for method in ("ddim", "dpm_solver"):
        for spacing in ("equal", "quadratic"):
            config = replace(solver=DiffusionSolverConfig(method, steps=25, spacing=spacing))
            found = exact(config).sample(200, seed=2).values
            errors[method, spacing] = (found - limit(config)(noise)).abs().mean()
    for spacing in ("equal", "quadratic"):
        assert errors["dpm_solver", spacing] < errors["ddim", spacing] / 2
    for method in ("ddim", "dpm_solver"):  # these codes are narrow: little noise counts
        assert errors[method, "quadratic"] < 0.6 * errors[method, "equal"]


def moments(config, steps_of_sampler=None):
    """Mean and variance of DDPM's samples of Gaussian codes, by its recursion in float64."""
    kept = config.kept_S if steps_of_sampler is None else config.kept_S[steps_of_sampler]
    before = np.concatenate([[1.0], kept[:-1]])
    beta = 1 - kept / before
    mean, variance = 0.0, 1.0
    for s in reversed(range(len(kept))):
        gain = math.sqrt(kept[s]) * STD**2 / (kept[s] * STD**2 + 1 - kept[s])
        of_code = math.sqrt(before[s]) * beta[s] / (1 - kept[s])
        of_point = math.sqrt(1 - beta[s]) * (1 - before[s]) / (1 - kept[s])
        small = beta[s] * (1 - before[s]) / (1 - kept[s])
        added = {"fixed_small": small, "fixed_large": beta[s]}[config.variance] if s else 0.0
        slope = of_code * gain + of_point
        mean = slope * mean + of_code * (MEAN - gain * math.sqrt(kept[s]) * MEAN)
        variance = slope**2 * variance + added
    return mean, variance


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("steps", [1000, 20])
def test_ddpm_has_the_moments_of_its_recursion(variance, steps):
    config = replace(method="ddpm", steps=steps, variance=variance)
    places = None if steps == 1000 else np.arange(49, 1000, 50)
    mean, std = (np.array(moments(config, places)) ** [1, 0.5]).tolist()
    drawn = exact(config, size=500).sample(20, seed=1).values
    assert drawn.mean().item() == pytest.approx(mean, abs=4 * std / 100)
    assert drawn.std().item() == pytest.approx(std, rel=0.03)
    if steps == 1000:
        assert (mean, std) == (pytest.approx(MEAN, abs=0.01), pytest.approx(STD, rel=0.03))


def test_ddim_of_full_chance_is_ddpm():
    ddpm = replace(method="ddpm", steps=20)
    ddim = replace(ddpm, solver=DiffusionSolverConfig("ddim", steps=20, eta=1.0))
    one, other = (exact(config).sample(5, seed=1).values for config in (ddpm, ddim))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", [("ddpm", 7), ("ddim", 7), ("dpm_solver", 7), ("ddpm", 1)])
@pytest.mark.parametrize("spacing", ["equal", "quadratic"])
def test_a_sample_is_the_same_however_many_are_drawn(solver, spacing):
    chance = 0.5 if solver[0] == "ddim" else 0.0
    config = replace(solver=DiffusionSolverConfig(*solver, spacing=spacing, eta=chance))
    density = exact(config)
    many = density.sample(6, seed=4).values
    assert torch.equal(density.sample(6, seed=4, chunk=2).values, many)
    assert torch.equal(density.sample(2, seed=4, first=3, chunk=1).values, many[3:5])
    assert not torch.equal(density.sample(6, seed=5).values, many)
    seen = []
    density.module.register_forward_hook(lambda *_: seen.append(1))
    density.sample(1, seed=0)
    assert len(seen) == config.solver.evaluations == solver[1]


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("prediction", ["sample", "previous", "velocity"])
@pytest.mark.parametrize("schedule", ["jsd", "linear", "cosine"])
def test_noise_alone_at_the_last_step(method, prediction, schedule):
    config = replace(
        method=method,
        steps=100,
        prediction=prediction,
        schedule=schedule,
        zero_terminal_snr=True,
    )
    assert config.signal_left == 0
    mean, std = MEAN, STD
    if method == "ddpm":
        mean, std = (np.array(moments(config, np.arange(9, 1000, 10))) ** [1, 0.5]).tolist()
    drawn = exact(config, size=200).sample(20, seed=1).values
    assert drawn.mean().item() == pytest.approx(mean, abs=0.03)
    assert drawn.std().item() == pytest.approx(std, rel=0.06)


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpm_solver"])
def test_few_steps_to_almost_nothing_are_finite(method):
    """Of cosine 2e-9 is left, and in float32 a step of a quarter of the way leaves nothing."""
    config = replace(method=method, steps=4, schedule="cosine", prediction="velocity")
    drawn = exact(config).sample(200, seed=1).values
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.1)
    assert 0 < drawn.std().item() < 2 * STD


# --- learnt variance --------------------------------------------------------------------------


def test_a_learnt_variance_becomes_that_of_the_step_back():
    """Of Gaussian codes: that of the step given the code, and what is not known of the code."""
    config = replace(diffusion_steps=20, beta_end=0.6, schedule="linear", variance="learnt")
    module = WithVariance(Exact(config), 4)
    none = Examples(codes(0).values)
    task = Denoising(config, module, train=Examples(codes(4000).values), val=none, seed=0)
    optimizer = torch.optim.Adam(module.variance.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        optimizer.zero_grad()
        task.loss(module, 512, generator=generator).backward()
        optimizer.step()
    kept = config.kept_S
    before = np.concatenate([[1.0], kept[:-1]])
    beta = 1 - kept / before
    small = beta * (1 - before) / (1 - kept)
    unknown = STD**2 * (1 - kept) / (kept * STD**2 + 1 - kept)
    wanted = small + before * beta**2 / (1 - kept) ** 2 * unknown
    step = torch.arange(1, 20)
    _, place = module(torch.zeros(19, 4), task.noising.times(step)).detach().chunk(2, dim=1)
    share = (place.double().mean(1).numpy() + 1) / 2
    found = small[1:] ** (1 - share) * beta[1:] ** share
    np.testing.assert_allclose(found[1:], wanted[2:], rtol=0.08)
    assert small[1] < found[0] < beta[1]  # where the variance changes fastest, it follows late


def test_a_learnt_variance_is_trained_saved_and_used(tmp_path):
    config = replace(variance="learnt", method="ddpm", steps=10)
    density, _ = fit(tmp_path / "run", config)
    assert density.module.variance[3].weight.abs().sum() > 0
    density.save(tmp_path)
    again = Diffusion.load(tmp_path)
    assert torch.equal(again.sample(3, seed=0).values, density.sample(3, seed=0).values)
    fixed = exact(replace(method="ddpm", steps=10))
    learnt = exact(config)
    learnt.module = WithVariance(learnt.module, 4)
    nn.init.constant_(learnt.module.variance[3].bias, -100.0)  # the smallest: fixed_small
    torch.testing.assert_close(learnt.sample(3, seed=0).values, fixed.sample(3, seed=0).values)


def test_points_that_are_shown_lie_on_the_path_of_a_gaussian():
    """Its deterministic path keeps z in x = sqrt(abar) m + sqrt(abar c^2 + 1 - abar) z."""
    density, shown = exact(replace(method="ddim", steps=1000)), []
    density.sample(3, seed=0, watch=lambda done, x_BK: shown.append((done, x_BK)))
    assert len(shown) == 1000 and shown[0][0] == 0
    torch.testing.assert_close(shown[0][1], draw_noise(3, 4, seed=0))
    start, z = shown[0][1], None
    for done, x_BK in shown[::100]:
        kept = density.config.kept_S[round((1 - done) * 1000) - 1]
        mean, std = kept**0.5 * MEAN, (kept * STD**2 + 1 - kept) ** 0.5
        z = (start - mean) / std if z is None else z
        torch.testing.assert_close(x_BK, mean + std * z, rtol=2e-2, atol=2e-2)


# --- conditions, architectures, clipping ------------------------------------------------------


@pytest.mark.parametrize("method", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_guidance_is_the_formula(method, guidance):
    """A guided Gaussian of one deviation is that of the mean none + guidance (condition - none)."""
    config = replace(condition="val_accuracy", method=method, steps=20)
    density = Diffusion(config)
    shape, scaling = codes(1).shape, Scaling(torch.zeros(()), torch.ones(()))
    number = Number("val_accuracy", 0.5, deviation=0.25, low=0.0, high=1.0)
    density.prepare(shape, scaling, seed=0, conditions=Conditions((number,)))
    density.module = Exact(config)
    found = density.sample(6, seed=1, condition=0.75, guidance=guidance).values  # 1 standardised
    wanted = exact(replace(config, condition="none"), mean=MEAN + guidance * (1 - MEAN))
    torch.testing.assert_close(found, wanted.sample(6, seed=1).values, rtol=1e-3, atol=1e-3)


def test_guidance_without_training_for_it_is_refused(tmp_path):
    told = {"train_conditions": {"val_accuracy": np.linspace(0.5, 0.9, 40)}}
    config = replace(condition="val_accuracy", drop_condition=0.0)
    density, _ = fit(tmp_path / "always", config, **told)
    with pytest.raises(ConfigError, match="this diffusion has not learnt to draw without"):
        density.sample(2, seed=0, condition=0.7, guidance=2.0)
    density, _ = fit(tmp_path / "never", SMALL)
    with pytest.raises(ConfigError, match=r"this diffusion was fitted with density\.condition ="):
        density.sample(2, seed=0, condition=0.7)


def test_several_architectures_have_their_own_numbers(tmp_path):
    mask = torch.tensor([[[1, 1, 1], [1, 1, 1], [1, 0, 0]], [[1, 1, 0], [0, 0, 0], [1, 0, 0]]]) > 0
    positions = torch.tensor([(0, 0, 0), (1, 0, 1), (2, 1, 0)])
    shape = CodeShape.sequences("ab", positions, mask=mask)
    backbone = TransformerConfig(width=8, heads=2, depth=1)
    kind_N = torch.arange(16) % 2
    for variance in ("fixed_small", "learnt"):
        config = replace(backbone=backbone, variance=variance, method="ddpm", steps=5)
        density = Diffusion(config)
        some = shape.fill(torch.randn(16, 7), kind_N)
        outcome = density.fit(some, some, run=RunFolder(tmp_path / variance, config), seed=0)
        assert math.isfinite(outcome.val_loss)
        for kind in range(2):
            drawn = density.sample(4, seed=1, kind=kind)
            assert not drawn.values[~mask[kind].expand(4, 3, 3)].any()
            assert drawn.values[mask[kind].expand(4, 3, 3)].all()


def test_clipping_keeps_codes_within_and_says_so_where_it_cuts(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    loose = exact(replace(clip=3.0))
    loose.sample(20, seed=0)
    assert "clip" not in caplog.text
    tight = exact(replace(clip=0.8))
    drawn = tight.sample(20, seed=0).values
    assert drawn.abs().max() <= 0.8 + 1e-6 and (drawn == 0.8).any()
    assert "clip = 0.8 cuts" in caplog.text and "of a code on its way" in caplog.text
    fit(tmp_path, replace(clip=0.8))
    assert "of a training network's code" in caplog.text


class Far(Exact):
    """Answers that stand for a code far out, after so many other steps."""

    def __init__(self, config, at, **known):
        super().__init__(config, **known)
        self.at, self.calls = at, 0

    def forward(self, x_BK, t_B):
        said_BK = super().forward(x_BK, t_B)
        self.calls += 1
        if self.calls == self.at + 1:
            said_BK[:, 0] += 100  # one number of four
        return said_BK


@pytest.mark.parametrize("at", [0, 4, 9])
def test_clipping_at_any_step_is_told_with_the_share_of_that_step(at, caplog):
    caplog.set_level(logging.WARNING)
    config = replace(clip=3.0, prediction="sample", steps=10, method="ddim")
    density = exact(config)
    density.module = Far(config, at)
    density.sample(20, seed=0)
    assert "clip = 3 cuts 25.0 % of a code on its way" in caplog.text


# --- the rest of the contract -----------------------------------------------------------------


def test_training_goes_on_where_it_stopped_to_the_same_bits(tmp_path, monkeypatch):
    from torch.nn.functional import mse_loss

    config = replace(variance="learnt", method="ddpm")
    whole, outcome = fit(tmp_path / "whole", config)
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return mse_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("dwf.densities.paths.mse_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "cut", config)
    again, found = fit(tmp_path / "cut", config)
    assert found == outcome
    assert torch.equal(again.sample(4, seed=0).values, whole.sample(4, seed=0).values)


def test_what_cannot_be_is_refused(tmp_path, caplog):
    with pytest.raises(TooFewNetworks, match="7 training networks are fewer than batch_size = 8"):
        fit(tmp_path / "few", SMALL, count=7)
    with pytest.raises(ConfigError, match="a diffusion bounds the likelihood of codes"):
        exact(SMALL).log_prob(codes(3))
    config = replace(variance="learnt", training=dataclasses.replace(TRAINING, optimizer="muon"))
    with pytest.raises(ConfigError, match="Exact has no hidden matrices"):
        WithVariance(Exact(config), 4).hidden_matrices()
    caplog.set_level(logging.INFO)
    few = replace(diffusion_steps=100, most_signal=0.7)
    fit(tmp_path / "much", few)
    assert "a part of 0.6 of a code is left at the last" in caplog.text
    assert "WARNING: networks are drawn from pure noise, and 0.6 of a code" in caplog.text
