"""The metric of a flow's errors, against closed forms; and what learns by it."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from dwf.backbones.config import ResidualMLPConfig, TransformerConfig
from dwf.codecs.config import FlatConfig, NeuronsConfig, PcaConfig, SaneConfig, TokensConfig
from dwf.codecs.flat import FlatCodec
from dwf.codecs.neurons.codec import NeuronsCodec
from dwf.codecs.neurons.scaling import balanced
from dwf.codecs.tokens.codec import TokensCodec
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.errors import ConfigError, CorruptCheckpoint, NotAZoo
from dwf.generators import sensitivity
from dwf.generators.config import GeneratorConfig
from dwf.generators.sensitivity import measure_sensitivity
from dwf.generators.stage import fit_generator, plan
from dwf.networks.config import CNNConfig
from dwf.run_folder import RunFolder, load_state
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.zoo.store import write_zoo

FLOW = FlowConfig(
    backbone=TransformerConfig(width=16, heads=2, depth=1),
    training=LoopConfig(
        steps=6,
        batch_size=4,
        ema=0.9,
        validate_every=3,
        compute=LoopComputeConfig(threads=1, device="cpu"),
    ),
    solver=SolverConfig(method="euler", steps=3),
    standardise="none",
    behaviour=0.5,
)
CONFIG = GeneratorConfig("small", codec=NeuronsConfig(), density=FLOW)


def fitted(tmp_path, *zoos, config=None):
    sources = [(zoo, zoo.rows("train", "last")) for zoo in zoos]
    codec = NeuronsCodec(config or NeuronsConfig())
    return codec.fit(sources, [], run=RunFolder(tmp_path / "run", CONFIG)), sources


def exact(zoo, rows):
    """E[g g^T] of an MLP with one hidden layer: of its units' tokens, and of its output's bias."""
    images = zoo.load_data()
    stored, _ = images.train.batch(torch.arange(len(images.train)))
    x_MI = images.prepare(stored).flatten(1).double()
    x_MI = torch.cat([x_MI, torch.ones(len(x_MI), 1)], 1)
    weights = torch.from_numpy(zoo.read(rows)).double()
    first, bias, second, _ = zoo.layout.unflatten(weights).values()
    first = torch.cat([first, bias.unsqueeze(2)], 2)
    total, num = 0, first.shape[0] * first.shape[1]
    for incoming_I, outgoing_O in zip(first.flatten(0, 1), second.mT.flatten(0, 1), strict=True):
        before_M = x_MI @ incoming_I
        # d logits / d token, [M, O, I + O]: the incoming weights' part is an outer product.
        active_MI = x_MI * (before_M > 0).unsqueeze(1)
        into = outgoing_O[:, None] * active_MI[:, None, :]
        out = before_M.relu()[:, None, None] * torch.eye(len(outgoing_O)).double()
        jacobian = torch.cat([into, out], 2).flatten(0, 1)
        total = total + jacobian.T @ jacobian / len(x_MI)
    return total / num, torch.eye(second.shape[1]).double()


def test_is_the_root_of_the_gauss_newton_matrix(make_zoo, tmp_path, monkeypatch):
    """Of networks that come in blocks of three."""
    monkeypatch.setattr(sensitivity, "_IMAGES", 2000)
    zoo = make_zoo(count=6, widths=(64, 4, 10))
    monkeypatch.setattr(sensitivity, "_BLOCK_BYTES", 4 * zoo.layout.size * 3)
    codec, sources = fitted(tmp_path, zoo, config=NeuronsConfig(standardise="none"))
    found = measure_sensitivity(codec, sources, seed=0)
    wanted = exact(*sources[0])
    roots = [np.linalg.svd(part)[1] ** 0.5 for part in wanted]
    scale = codec.shape.size / sum(n * root.sum() for n, root in zip((4, 1), roots, strict=True))
    for root, square in zip(found, wanted, strict=True):
        difference = root.double() @ root.double() / scale**2 - square
        assert difference.norm() < 0.05 * square.norm()


def test_is_that_of_standardised_numbers(make_zoo, tmp_path):
    """A number in units of its deviation s has a gradient s times as large."""
    zoo = make_zoo(count=6, widths=(64, 4, 10))
    codec, sources = fitted(tmp_path, zoo)
    plain, _ = fitted(tmp_path, zoo, config=NeuronsConfig(standardise="none"))
    scaled, unscaled = (measure_sensitivity(c, sources, seed=0) for c in (codec, plain))
    unit = codec.encode(torch.ones(1, zoo.layout.size), zoo.layout).flatten()
    zero = codec.encode(torch.zeros(1, zoo.layout.size), zoo.layout).flatten()
    deviation_C = 1 / (unit - zero)[0, :75]
    wanted = deviation_C[:, None] * (unscaled[0] @ unscaled[0]) * deviation_C
    square = scaled[0] @ scaled[0]
    torch.testing.assert_close(
        square / square.trace(), wanted / wanted.trace(), rtol=1e-3, atol=1e-6
    )


def test_what_no_image_shows_counts_nothing(make_zoo, tmp_path):
    zoo = make_zoo()
    codec, sources = fitted(tmp_path, zoo)
    metric = measure_sensitivity(codec, sources, seed=0)[0]
    images = zoo.load_data().train
    stored, _ = images.batch(torch.arange(len(images)))
    dark_C = stored.flatten(1).sum(0) == 0
    assert dark_C.any()
    largest = metric.abs().max()
    assert metric[:64][dark_C].abs().max() < 1e-3 * largest
    assert (metric - metric.T).abs().max() < 1e-5 * largest
    assert torch.linalg.eigvalsh(metric).min() > -1e-5 * largest


def test_scaled_so_that_equal_errors_count_as_they_did(make_zoo, tmp_path):
    """Of both architectures together, by the numbers that their networks have."""
    codec, sources = fitted(tmp_path, make_zoo(), make_zoo(widths=(64, 12, 10), name="narrow"))
    metric = measure_sensitivity(codec, sources, seed=0)
    units = 14  # the mean of 16 and 12
    assert [len(part) for part in metric] == [75, 10]
    total = units * metric[0].trace() + metric[1].trace()
    assert total.item() == pytest.approx(units * 75 + 10, rel=1e-4)


def test_units_that_a_network_lacks_are_no_units_without_influence(make_zoo, tmp_path):
    """A zoo of few of the like units hardly changes what those of another count."""
    wide = make_zoo(count=40)
    narrow = make_zoo(count=40, widths=(64, 2, 10), name="narrow", seed=1)
    both, alone = (
        measure_sensitivity(
            *fitted(tmp_path / str(len(zoos)), *zoos, config=NeuronsConfig("none")), seed=0
        )
        for zoos in ((wide, narrow), (wide,))
    )
    ratios = [(hidden.trace() / bias.trace()).item() for hidden, bias in (both, alone)]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.05)


def rewritten(zoo, weights_ND, name):
    """Return a zoo of other networks, in the splits of the first."""
    columns = {key: zoo.columns[key] for key in ("network", "epoch", "split")}
    path, num = zoo.path.with_name(name), len(weights_ND)
    return write_zoo(path, zoo.facts, num_rows=num, blocks=[(columns, weights_ND.numpy())])


def test_of_balanced_codes_it_is_that_of_balanced_networks(make_zoo, tmp_path):
    zoo = make_zoo()
    even = rewritten(zoo, balanced(torch.from_numpy(zoo.read()), zoo.layout)[0], name="even")
    by_codec = fitted(tmp_path / "a", zoo, config=NeuronsConfig("none", scale="balanced"))
    by_zoo = fitted(tmp_path / "b", even, config=NeuronsConfig("none"))
    found, wanted = (measure_sensitivity(*each, seed=0) for each in (by_codec, by_zoo))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    as_they_are = fitted(tmp_path / "c", zoo, config=NeuronsConfig("none"))
    assert (measure_sensitivity(*as_they_are, seed=0)[0] - wanted[0]).norm() > 1


@pytest.mark.parametrize("config", [NeuronsConfig("none"), TokensConfig(buffers=True)])
def test_running_statistics_are_each_networks_own(convolutional, tmp_path, config):
    weights_ND = torch.from_numpy(convolutional.read())
    for name, part in convolutional.layout.unflatten(weights_ND).items():
        if name == "norms.1.running_var":
            part.mul_(4)
    wider = rewritten(convolutional, weights_ND, name="wider")
    rows = convolutional.rows("train", "last")
    codec = (NeuronsCodec if config.kind == "neurons" else TokensCodec)(config)
    codec.fit([(convolutional, rows)], [], run=RunFolder(tmp_path / "run", CONFIG))
    first, other = (measure_sensitivity(codec, [(z, rows)], seed=0) for z in (convolutional, wider))
    assert all(part.isfinite().all() for part in first)
    assert max((a - b).norm() for a, b in zip(first, other, strict=True)) > 0.1


def test_filters_have_one_too(make_zoo, tmp_path):
    network = CNNConfig(channels=(3, 4), input=(1, 8, 8), head="average")
    codec, sources = fitted(tmp_path, make_zoo(network=network))
    assert [len(part) for part in measure_sensitivity(codec, sources, seed=0)] == [10, 38, 10]


def test_same_seed_same_metric(make_zoo, tmp_path):
    codec, sources = fitted(tmp_path, make_zoo())
    first, again, other = (measure_sensitivity(codec, sources, seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_vectors_are_refused(make_zoo, tmp_path):
    zoo = make_zoo()
    sources = [(zoo, zoo.rows("train", "last"))]
    codec = FlatCodec(FlatConfig()).fit(sources, [], run=RunFolder(tmp_path / "run", CONFIG))
    with pytest.raises(ConfigError, match=r"density.behaviour .*'flat' makes vectors"):
        measure_sensitivity(codec, sources, seed=0)


@pytest.mark.parametrize("missing", ["network", "data"])
def test_a_zoo_whose_networks_cannot_be_run_is_refused_at_once(make_zoo, tmp_path, missing):
    file = make_zoo().path / "zoo.json"
    facts = json.loads(file.read_text())
    facts.pop(missing)
    file.write_text(json.dumps(facts))
    for look in (
        lambda: fit_generator(CONFIG, tmp_path, name="run"),
        lambda: plan(CONFIG, tmp_path, name="g"),
    ):
        with pytest.raises(NotAZoo, match=f"small/zoo.json: {missing} is missing"):
            look()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("codec", [FlatConfig(), PcaConfig(), SaneConfig()])
def test_codecs_without_a_derivative_are_refused_before_they_learn(codec):
    with pytest.raises(ValueError, match=f"behaviour = 0.5 .*codec.kind = '{codec.kind}'"):
        dataclasses.replace(CONFIG, codec=codec)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backbone": ResidualMLPConfig()}, "behaviour = 0.5 .* takes vectors"),
        ({"standardise": "per_dimension"}, "standardise = 'per_dimension' scales each"),
    ],
)
def test_settings_that_have_no_tokens_to_measure(settings, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(FLOW, **settings)


def test_a_metric_that_was_measured_is_not_measured_again(make_zoo, tmp_path, monkeypatch):
    make_zoo()
    fit_generator(CONFIG, tmp_path, name="whole")
    (tmp_path / "runs" / "whole" / "density" / "flow.pt").unlink()
    monkeypatch.delattr("dwf.generators.generator.measure_sensitivity")
    assert fit_generator(CONFIG, tmp_path, name="whole").sample(2, seed=0).isfinite().all()


def test_a_damaged_metric_is_named_and_then_measured_again(make_zoo, tmp_path):
    make_zoo()
    fit_generator(CONFIG, tmp_path, name="whole")
    run = tmp_path / "runs" / "whole"
    file, flow = run / "metric.pt", run / "density" / "flow.pt"
    metric, whole = load_state(file), flow.read_bytes()
    file.write_bytes(file.read_bytes()[:1000])
    flow.unlink()
    with pytest.raises(CorruptCheckpoint, match=r"metric.pt is damaged .*remove it"):
        fit_generator(CONFIG, tmp_path, name="whole")
    file.unlink()
    fit_generator(CONFIG, tmp_path, name="whole")
    assert all(torch.equal(a, b) for a, b in zip(load_state(file), metric, strict=True))
    assert flow.read_bytes() == whole


def test_the_plan_says_what_errors_count(make_zoo, tmp_path):
    make_zoo()
    assert "50% of the loss counts errors by what they change" in plan(CONFIG, tmp_path, name="g")
