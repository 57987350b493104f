"""Flows against closed forms: a linear velocity, oracles of Gaussians; resumed bitwise."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from dwf.backbones.config import (
    LongTransformerConfig,
    NeuralGraphConfig,
    PublishedMLPConfig,
    ResidualMLPConfig,
    TransformerConfig,
)
from dwf.backbones.linear import ONEDNN, kernel_of
from dwf.codecs.codes import CodeShape
from dwf.densities.config import DENSITIES, FlowConfig, GaussianConfig, SolverConfig
from dwf.densities.flow import Flow
from dwf.densities.scaling import Scaling
from dwf.densities.solver import draw_noise
from dwf.errors import ConfigError, CorruptCheckpoint, ShapeMismatch, TooFewNetworks
from dwf.metrics import read_metrics
from dwf.run_folder import RunFolder
from dwf.settings import build, find, to_dict
from dwf.training.config import LoopComputeConfig, LoopConfig
from tests.densities.coded import vector_codes

SMALL = FlowConfig(
    backbone=ResidualMLPConfig(width=16, depth=1, dropout=0.1, time_features=8),
    training=LoopConfig(
        steps=12, batch_size=8, ema=0.9, validate_every=5, compute=LoopComputeConfig(save_seconds=0)
    ),
)
LEARN = FlowConfig(
    backbone=ResidualMLPConfig(width=48, depth=2, time_features=16),
    training=LoopConfig(
        steps=800,
        batch_size=256,
        learning_rate=3e-3,
        ema=0.99,
        validate_every=100,
        compute=LoopComputeConfig(threads=1),
    ),
)


def normal(count, num_features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, num_features, generator=generator)


def fit(path, config, values, seed=0):
    flow = Flow(config)
    cut = len(values) * 4 // 5
    train, val = vector_codes(values[:cut]), vector_codes(values[cut:])
    outcome = flow.fit(train, val, run=RunFolder(path, config), seed=seed)
    return flow, outcome


@pytest.mark.parametrize("prediction", ["velocity", "target", "residual"])
def test_learns_a_gaussian(tmp_path, prediction):
    mixing = torch.tensor([[2.0, 0.0], [1.5, 0.5]])
    mean = torch.tensor([3.0, -1.0])
    config = dataclasses.replace(LEARN, prediction=prediction)
    flow, _ = fit(tmp_path, config, values=normal(5000, 2) @ mixing.T + mean)
    drawn = flow.sample(4000, seed=1).values
    wanted = mixing @ mixing.T
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.15)
    torch.testing.assert_close(drawn.T.cov(), wanted, rtol=0, atol=0.1 * wanted.max().item())
    if prediction != "target":  # a learnt target's error grows by 1 / (1 - t) in its likelihood
        codes = vector_codes(normal(200, 2, seed=9) @ mixing.T + mean)
        wanted = torch.distributions.MultivariateNormal(mean, wanted).log_prob(codes.values)
        assert (flow.log_prob(codes) - wanted).abs().mean() < 0.15


def test_learns_a_mixture(tmp_path):
    """Two modes of weights 1/4 and 3/4 at (-2, 0) and (2, 0), deviation 0.3."""
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(5000, generator=generator) < 0.75
    centres = torch.where(right, 2.0, -2.0).unsqueeze(1) * torch.tensor([1.0, 0.0])
    flow, outcome = fit(tmp_path, LEARN, values=centres + 0.3 * normal(5000, 2))
    drawn = flow.sample(4000, seed=1).values
    on_right = drawn[:, 0] > 0
    assert on_right.float().mean().item() == pytest.approx(0.75, abs=0.05)
    for side, centre in ((on_right, 2.0), (~on_right, -2.0)):
        torch.testing.assert_close(drawn[side].mean(0), torch.tensor([centre, 0]), rtol=0, atol=0.1)
        assert drawn[side].std(0).tolist() == pytest.approx([0.3, 0.3], abs=0.13)
    first, *_, last = read_metrics(tmp_path / "metrics.jsonl")
    assert last["val_loss"] < first["val_loss"]
    assert outcome.val_loss == last["val_loss"]


class Linear(nn.Module):
    """The velocity v = A x + t b."""

    def __init__(self, num_features):
        super().__init__()
        self.matrix = 0.4 * normal(num_features, num_features, seed=3)
        self.shift = normal(1, num_features, seed=4)

    def forward(self, x_BK, t_B):
        return x_BK @ self.matrix.T + t_B.unsqueeze(1) * self.shift


def linear_flow(num_features=3, source_std=0.7):
    config = dataclasses.replace(SMALL, source_std=source_std)
    config = dataclasses.replace(config, solver=SolverConfig(rtol=1e-6, atol=1e-6))
    flow = Flow(config)
    codes = vector_codes(normal(50, num_features) * torch.arange(1.0, num_features + 1) + 2)
    flow.prepare(codes.shape, Scaling.fit(codes, "per_dimension"), seed=0)
    flow.module = Linear(num_features)
    return flow, codes


def linear_pushforward(flow):
    """x(1) = e^A x(0) + integral of e^(A (1 - t)) t b: a Gaussian, in the codes' own units."""
    matrix = flow.module.matrix.double()
    grow = torch.linalg.matrix_exp(matrix)
    identity = torch.eye(len(matrix), dtype=torch.float64)
    inverse = torch.linalg.inv(matrix)
    moved = inverse @ (inverse @ (grow - identity) - identity) @ flow.module.shift[0].double()
    stretch = flow.scaling.deviation.double().diag() @ grow * flow.config.source_std
    mean = flow.scaling.mean.double() + flow.scaling.deviation.double() * moved
    return torch.distributions.MultivariateNormal(mean, stretch @ stretch.T)


def test_log_prob_of_a_linear_velocity_is_the_closed_form():
    flow, codes = linear_flow()
    wanted = linear_pushforward(flow).log_prob(codes.values.double()).float()
    torch.testing.assert_close(flow.log_prob(codes), wanted, rtol=1e-4, atol=1e-4)
    # For a linear velocity Hutchinson's estimate is s'As: its mean over many signs is the trace.
    estimated = flow.log_prob(codes, exact=False, probes=2000, seed=1)
    torch.testing.assert_close(estimated, wanted, rtol=0, atol=0.15)
    assert torch.equal(estimated, flow.log_prob(codes, exact=False, probes=2000, seed=1))


def test_samples_of_a_linear_velocity_are_its_gaussian():
    flow, _ = linear_flow()
    drawn = flow.sample(20_000, seed=0).values.double()
    wanted = linear_pushforward(flow)
    scale = wanted.covariance_matrix.diagonal().max().item()
    torch.testing.assert_close(drawn.mean(0), wanted.mean, rtol=0, atol=0.03 * scale**0.5)
    torch.testing.assert_close(drawn.T.cov(), wanted.covariance_matrix, rtol=0, atol=0.05 * scale)


def test_an_oracle_target_moves_sources_to_it():
    flow, _ = linear_flow()
    flow.config = dataclasses.replace(flow.config, prediction="target")
    target = torch.tensor([1.0, -2.0, 0.5])
    flow.module = lambda x, t: target.expand_as(x)
    wanted = flow.scaling.undo(target).expand(5, 3)
    for method in ("euler", "rk4", "dopri5"):  # rk4 looks at t = 1, where the velocity divides by 0
        drawn = flow.sample(5, seed=0, method=method, steps=200).values
        torch.testing.assert_close(drawn, wanted, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("prediction", ["velocity", "target", "residual"])
def test_oracles_of_a_gaussian_give_its_log_prob(prediction):
    """Codes ~ N(m, c^2) from a source of deviation s, by what the perfect network would say."""
    s, c, m = 0.5, 2.0, 1.5

    def oracle(x, t):
        t = t.unsqueeze(1)
        variance = t**2 * c**2 + (1 - t) ** 2 * s**2
        if prediction == "target":
            return m + t * c**2 / variance * (x - t * m)
        velocity = m + (t * c**2 - (1 - t) * s**2) / variance * (x - t * m)
        if prediction == "residual":  # beyond that of c = 1, m = 0
            velocity -= (t - (1 - t) * s**2) / (t**2 + (1 - t) ** 2 * s**2) * x
        return velocity

    flow, codes = linear_flow(source_std=s)
    flow.config = dataclasses.replace(flow.config, prediction=prediction)
    flow.scaling = Scaling.fit(codes, "none")
    flow.module = oracle
    wanted = torch.distributions.Normal(m, c).log_prob(codes.values).sum(1)
    torch.testing.assert_close(flow.log_prob(codes), wanted, rtol=0, atol=0.05)


def test_without_a_residual_samples_are_standard_normal():
    """The flow is then x0 / s: each sample is the noise that it starts from, in units of s."""
    flow, _ = linear_flow(source_std=0.3)
    flow.config = dataclasses.replace(flow.config, prediction="residual")
    flow.scaling = Scaling(torch.zeros(1), torch.ones(1))
    flow.module = lambda x, t: torch.zeros_like(x)
    drawn = flow.sample(20, seed=3, method="rk4", steps=200).values
    torch.testing.assert_close(drawn, draw_noise(20, drawn.shape[1], seed=3), rtol=1e-4, atol=1e-5)


def test_a_temperature_scales_the_noise_that_samples_start_from():
    """Codes ~ N(m, c^2): a perfect flow moves its noise x0 / s = z to m + c z."""
    s, c, m = 0.5, 2.0, 1.5
    flow, _ = linear_flow(source_std=s)
    flow.scaling = Scaling(torch.zeros(1), torch.ones(1))

    def oracle(x, t):
        t = t.unsqueeze(1)
        spread = t**2 * c**2 + (1 - t) ** 2 * s**2
        return m + (t * c**2 - (1 - t) * s**2) / spread * (x - t * m)

    flow.module = oracle
    noise = draw_noise(20, 3, seed=3)
    for temperature in (1.0, 0.5):
        drawn = flow.sample(20, seed=3, method="rk4", steps=200, temperature=temperature).values
        torch.testing.assert_close(drawn, m + c * temperature * noise, rtol=1e-3, atol=1e-3)


def test_samples_depend_neither_on_chunk_nor_on_count():
    flow, _ = linear_flow()
    fixed = {"method": "rk4", "steps": 10}
    whole = flow.sample(23, seed=5, **fixed).values
    torch.testing.assert_close(flow.sample(23, seed=5, chunk=4, **fixed).values, whole)
    torch.testing.assert_close(flow.sample(9, seed=5, **fixed).values, whole[:9])
    torch.testing.assert_close(flow.sample(3, seed=5, first=20, **fixed).values, whole[20:])
    assert not torch.allclose(flow.sample(23, seed=6, **fixed).values, whole)


def test_resume_is_bitwise_equal(tmp_path, monkeypatch):
    values = normal(40, 5)
    for changes in ({}, {"pairing": "optimal_transport"}, {"source": "fixed", "time": "beta"}):
        config = dataclasses.replace(SMALL, sigma=0.1, **changes)
        name = "-".join(changes) or "default"
        whole, outcome = fit(tmp_path / f"{name}-whole", config, values=values, seed=3)
        with monkeypatch.context() as patch:
            patch.setattr("dwf.densities.paths.mse_loss", fail_at(7))
            with pytest.raises(KeyboardInterrupt):
                fit(tmp_path / f"{name}-cut", config, values=values, seed=3)
        resumed, again = fit(tmp_path / f"{name}-cut", config, values=values, seed=3)
        assert again == outcome
        for tensor, other in zip(
            whole.module.parameters(), resumed.module.parameters(), strict=True
        ):
            assert torch.equal(tensor, other)


def fail_at(call):
    from torch.nn.functional import mse_loss

    calls = iter(range(1, 10**6))

    def counted(*arguments):
        if next(calls) == call:
            raise KeyboardInterrupt
        return mse_loss(*arguments)

    return counted


def test_same_seed_same_flow_other_seed_other_flow(tmp_path):
    values = normal(40, 5)
    draws = []
    for i, seed in enumerate((3, 3, 4)):
        torch.manual_seed(i)  # the caller's streams play no part
        draws.append(
            fit(tmp_path / str(i), SMALL, values=values, seed=seed)[0].sample(4, seed=0).values
        )
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_saved_and_loaded_draws_the_same(tmp_path):
    flow, _ = fit(tmp_path, SMALL, values=normal(40, 5))
    flow.save(tmp_path / "saved")
    loaded = Flow.load(tmp_path / "saved")
    assert torch.equal(loaded.sample(6, seed=2).values, flow.sample(6, seed=2).values)
    assert (loaded.config, loaded.sample(1, 0).shape.layout) == (SMALL, "layout")
    path = tmp_path / "saved" / "flow.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorruptCheckpoint, match=r"flow\.pt is damaged"):
        Flow.load(tmp_path / "saved")


def test_the_published_preset_runs(tmp_path):
    config = FlowConfig(
        backbone=PublishedMLPConfig(hidden=32),
        training=LoopConfig(
            steps=20, batch_size=8, learning_rate=5e-4, weight_decay=1e-5, betas=(0.9, 0.95),
            minimum_rate=1e-6, keep="best", validate_every=10,
        ),
        solver=SolverConfig(method="rk4", steps=99),
        standardise="none", source="fixed", source_std=0.01, sigma=0.001,
    )  # fmt: skip
    flow, outcome = fit(tmp_path, config, values=normal(40, 9))
    assert outcome.kept_step in (10, 20)
    assert flow.sample(3, seed=0).values.isfinite().all()


def test_standardising_is_undone(tmp_path):
    """With a velocity of zero samples are the source in the codes' units."""
    values = normal(4000, 2) * torch.tensor([100.0, 0.01]) + torch.tensor([5.0, -3.0])
    training = dataclasses.replace(SMALL.training, steps=1, learning_rate=1e-12)
    for kind, wanted in (
        ("per_dimension", [100, 0.01]),
        ("global", [70.7, 70.7]),
        ("none", [1, 1]),
    ):
        config = dataclasses.replace(SMALL, training=training, standardise=kind)
        flow, _ = fit(tmp_path / kind, config, values=values)
        assert flow.sample(4000, seed=0).values.std(0).tolist() == pytest.approx(wanted, rel=0.05)


def test_fewer_networks_than_the_batch_is_an_error(tmp_path):
    with pytest.raises(TooFewNetworks, match=r"4 training networks are fewer than batch_size = 8"):
        fit(tmp_path, SMALL, values=normal(5, 3))


def test_codes_that_do_not_fit_are_refused(tmp_path):
    flow = Flow(SMALL)
    run = RunFolder(tmp_path, SMALL)
    with pytest.raises(ShapeMismatch, match=r"\[9, 2, 3\] are not vectors"):
        flow.fit(
            vector_codes(torch.zeros(9, 2, 3), "a"),
            vector_codes(torch.zeros(1, 2, 3), "a"),
            run=run,
        )
    with pytest.raises(
        ShapeMismatch, match="layout b do not match codes of 3 numbers and layout a"
    ):
        flow.fit(
            vector_codes(torch.zeros(9, 3), "a"), vector_codes(torch.zeros(1, 3), "b"), run=run
        )


def test_settings_survive_a_file_and_name_what_is_wrong():
    assert build(FlowConfig, to_dict(LEARN), source="flow.yaml") == LEARN
    with pytest.raises(ConfigError, match=r"backbone.kind = 'mpl'.*did you mean 'mlp'"):
        build(FlowConfig, {"backbone": {"kind": "mpl"}}, source="flow.yaml")
    with pytest.raises(ConfigError, match=r"solver.method = 'rk45'.*euler, midpoint"):
        build(FlowConfig, {"solver": {"method": "rk45"}}, source="flow.yaml")
    for config in (FlowConfig(), GaussianConfig()):
        assert find(DENSITIES, config.kind)(config).config is config


def test_log_source_is_normalised():
    """A flow that does not move leaves the source's density."""
    flow, codes = linear_flow(source_std=1.0)
    flow.module = lambda x, t: 0 * x
    deviation = flow.scaling.deviation
    z = (codes.values - flow.scaling.mean) / deviation
    wanted = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) - deviation.log().sum()
    torch.testing.assert_close(flow.log_prob(codes), wanted)


TOKENS = dataclasses.replace(SMALL, backbone=TransformerConfig(width=16, heads=2, depth=1))


def sequences(count, seed=0):
    """Three tokens of 4 numbers and one of 2: 14 numbers in a padded [count, 4, 4]."""
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[3, 2:] = False
    positions = torch.tensor([[0, 0, 0], [1, 0, 1], [2, 0, 2], [3, 1, 0]])
    shape = CodeShape.sequences(["layout"], positions, mask=mask)
    return shape.fill(normal(count, 14, seed=seed) * 2 + 1)


@pytest.mark.parametrize(
    "backbone",
    [
        TOKENS.backbone,
        LongTransformerConfig(width=16, heads=2, depth=2, window=3),
        NeuralGraphConfig(width=16, depth=1),
    ],
    ids=lambda backbone: backbone.kind,
)
def test_learns_sequences_and_draws_them_as_it_got_them(backbone, tmp_path, monkeypatch):
    compute = dataclasses.replace(TOKENS.training.compute, kernel=ONEDNN)
    training = dataclasses.replace(TOKENS.training, compute=compute)
    config = dataclasses.replace(TOKENS, backbone=backbone, training=training)
    flow = Flow(config)
    outcome = flow.fit(sequences(32), sequences(8, seed=1), run=RunFolder(tmp_path, config))
    drawn = flow.sample(6, seed=2)
    assert outcome.steps == 12 and drawn.values.shape == (6, 4, 4)
    assert not drawn.values[:, ~drawn.shape.mask].any() and drawn.values.isfinite().all()
    flow.save(tmp_path / "saved")
    loaded = Flow.load(tmp_path / "saved")
    assert kernel_of(loaded.module) == ONEDNN
    again = loaded.sample(6, seed=2)
    assert torch.equal(again.values, drawn.values) and torch.equal(
        again.shape.mask, drawn.shape.mask
    )
    two = 2 * backbone.widest(drawn.shape)
    widest = {
        "transformer": 4 * 16 * 4,
        "long_transformer": (4 + 2) * 16 * 4,  # and a global token of each layer
        "neural_graph": 14 * 16,
    }
    assert two == 2 * widest[backbone.kind]
    monkeypatch.setattr("dwf.densities.learnt._CACHED_NUMBERS", two)
    assert loaded._chunk() == 2
    torch.testing.assert_close(loaded.sample(6, seed=2).values, drawn.values, rtol=0, atol=0.01)
    # Attention's backward pass has to go through vmap, exactly and by random signs.
    exact = loaded.log_prob(drawn, method="midpoint", steps=4)
    signs = loaded.log_prob(drawn, exact=False, probes=400, method="midpoint", steps=4)
    torch.testing.assert_close(signs, exact, rtol=0, atol=0.1)


def test_the_loss_of_any_codes_is_at_the_noise_of_its_seed():
    """A flow that says 0 is wrong by code minus noise, whose mean square is known."""
    flow, codes = linear_flow(source_std=1.0)
    flow.module = lambda x, t: 0 * x
    found = [flow.loss(codes, seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    whitened = (codes.values - flow.scaling.mean) / flow.scaling.deviation
    wanted = 1 + whitened.square().mean().item()
    assert sum(flow.loss(codes, seed) for seed in range(8)) / 8 == pytest.approx(wanted, rel=0.1)


def test_a_sequence_is_the_vector_of_its_weights():
    """What pads tokens takes part in neither pairing, nor scaling, nor likelihood."""
    codes = sequences(50)
    as_vectors = vector_codes(codes.flatten())
    results = []
    for form, backbone in ((codes, TOKENS.backbone), (as_vectors, SMALL.backbone)):
        flow = Flow(dataclasses.replace(SMALL, backbone=backbone))
        flow.prepare(form.shape, Scaling.fit(form, "per_dimension"), seed=0)
        flow.module = Linear(14)
        results.append((flow.sample(3, seed=1).flatten(), flow.log_prob(form)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_backbone_and_codes_of_two_kinds_are_refused(tmp_path):
    vectors = vector_codes(normal(32, 14))
    with pytest.raises(ConfigError, match=r"'transformer' takes tokens.*vectors of 14 numbers"):
        Flow(TOKENS).fit(vectors, vectors, run=RunFolder(tmp_path, TOKENS))
    with pytest.raises(ConfigError, match=r"'residual_mlp' takes vectors.*sequences of 4 tokens"):
        Flow(SMALL).fit(sequences(32), sequences(8), run=RunFolder(tmp_path, TOKENS))


def test_processes_that_prepare_batches_are_no_setting_of_a_density():
    with pytest.raises(ConfigError, match=r"training\.compute\.workers: no such setting"):
        build(FlowConfig, {"training": {"compute": {"workers": 2}}}, source="file")
