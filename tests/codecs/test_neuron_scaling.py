"""Balanced units: what a network computes stays, and the way back is exact."""

import logging

import pytest
import torch
from torch.func import functional_call

from dwf.codecs.codec import Codec
from dwf.codecs.config import NeuronsConfig
from dwf.codecs.neurons.codec import NeuronsCodec
from dwf.codecs.neurons.layers import unit_groups
from dwf.codecs.neurons.scaling import balanced, scale_back
from dwf.errors import ConfigError
from dwf.networks.config import CNNConfig, MLPConfig, NetworkConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo
from tests.codecs.zoos import layout_of, write_random_zoo

SCALABLE = {
    "mlp": (MLPConfig((9, 5, 3)), (1, 3, 3)),
    "deep mlp": (MLPConfig((9, 5, 4, 6, 3), "leaky_relu"), (1, 3, 3)),
    "flatten": (CNNConfig((3, 4), (1, 8, 8), pools=(2, 0), hidden=(5,)), (1, 8, 8)),
    "average": (CNNConfig((3, 4), (1, 8, 8), head="average"), (1, 8, 8)),
    "norms": (CNNConfig((3, 4), (1, 8, 8), norm="batch"), (1, 8, 8)),
}
EACH = pytest.mark.parametrize("name", SCALABLE)


def fit(zoo: Zoo, run, **settings) -> NeuronsCodec:
    return NeuronsCodec(NeuronsConfig(**settings)).fit([(zoo, zoo.rows("train"))], [], run=run)


def random_weights(layout: Layout, count: int = 4) -> torch.Tensor:
    """float64 networks whose tensors differ in size, with variances above 0."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(count, layout.size, generator=generator, dtype=torch.float64)
    for i, (name, tensor) in enumerate(layout.unflatten(weights).items()):
        tensor.mul_(3.0 ** (i % 3))
        if name.endswith("running_var"):
            tensor.abs_()
    return weights


def outputs(config: NetworkConfig, shape, weights: torch.Tensor) -> torch.Tensor:
    network = build_network(config).double()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(20, *shape, generator=generator, dtype=torch.float64)
    state = Layout.of(network).unflatten(weights)
    one = [{key: value[n] for key, value in state.items()} for n in range(len(weights))]
    return torch.stack([functional_call(network, each, (images,)) for each in one])


@EACH
def test_balancing_keeps_what_a_network_computes(name):
    config, shape = SCALABLE[name]
    layout = layout_of(config)
    weights = random_weights(layout)
    moved, log_NU = balanced(weights, layout)
    assert not torch.allclose(moved, weights)
    torch.testing.assert_close(
        outputs(config, shape, weights=moved),
        outputs(config, shape, weights=weights),
        rtol=1e-10,
        atol=1e-9,
    )
    state, at = layout.unflatten(moved), 0
    for group in unit_groups(layout):  # by hand: what makes a unit weighs as much as what takes it
        for u in range(group.size):
            squares = {1: 0.0, -1: 0.0, 0: 0.0}
            for member in group.members:
                units = (
                    state[member.name].movedim(member.axis + 1, 0).unflatten(0, (group.size, -1))
                )
                squares[member.power] = squares[member.power] + units[u].square().sum(
                    (0, *range(2, units.dim() - 1))
                )
            torch.testing.assert_close(squares[1], squares[-1], rtol=1e-8, atol=0)
        at += group.size
    assert log_NU.shape == (4, at)
    rows = torch.cat([moved, log_NU], 1)
    scale_back(rows, layout)
    torch.testing.assert_close(rows[:, : layout.size], weights, rtol=1e-12, atol=1e-13)


@EACH
@pytest.mark.parametrize("standardise", ["none", "per_feature", "per_weight"])
def test_the_logarithm_brings_back_the_scale(tmp_path, run, name, standardise):
    config, shape = SCALABLE[name]
    zoo = write_random_zoo(tmp_path / "zoo", config, shape=shape, count=8)
    codec = fit(zoo, run, scale="logarithm", standardise=standardise)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    hidden = sum(group.size for group in unit_groups(zoo.layout))
    assert codes.shape.size == codec.num_covered + hidden == codec.shape.size
    assert (
        codec.planned_shape(codec.config, [zoo.layout], num_train=8) == codes.shape == codec.shape
    )
    back = codec.decode(codes, zoo.layout)
    pair = zoo.layout.learnt(back), zoo.layout.learnt(weights)
    torch.testing.assert_close(*pair, rtol=2e-5, atol=1e-5)
    assert codec.log_volume(zoo.layout) is None


@EACH
def test_balanced_codes_are_those_of_any_scale_of_a_network(tmp_path, run, name):
    config, shape = SCALABLE[name]
    zoo = write_random_zoo(tmp_path / "zoo", config, shape=shape, count=8)
    codec = fit(zoo, run, scale="balanced")
    weights = torch.from_numpy(zoo.read()).double()
    for entry in zoo.layout.entries:
        if entry.name.endswith("running_var"):
            weights[:, entry.offset : entry.stop].abs_()
    factors = torch.rand(8, sum(g.size for g in unit_groups(zoo.layout)), dtype=torch.float64)
    rows = torch.cat([weights, factors], 1)
    scale_back(rows, zoo.layout)
    other = rows[:, : zoo.layout.size]
    torch.testing.assert_close(
        outputs(config, shape, weights=other),
        outputs(config, shape, weights=weights),
        rtol=1e-10,
        atol=1e-9,
    )
    found, wanted = (codec.encode(each.float(), zoo.layout) for each in (other, weights))
    torch.testing.assert_close(found.values, wanted.values, rtol=0, atol=2e-5)
    back = codec.decode(wanted, zoo.layout)
    again = codec.decode(codec.encode(back, zoo.layout), zoo.layout)
    torch.testing.assert_close(again, back, rtol=0, atol=2e-5)
    covered = torch.zeros(zoo.layout.size, dtype=torch.bool)
    for start, stop in codec.spans:
        covered[start:stop] = True
    back = torch.where(covered, back.double(), weights)
    torch.testing.assert_close(
        outputs(config, shape, weights=back),
        outputs(config, shape, weights=weights),
        rtol=1e-3,
        atol=1e-2,
    )


def test_dead_units_keep_their_scale_and_are_counted(make_zoo, tmp_path, run, caplog):
    varied = make_zoo(widths=(9, 5, 3))
    weights = varied.read()
    state = varied.layout.unflatten(torch.from_numpy(weights))
    train = varied.rows("train")
    state["layers.0.weight"][train[0], 1] = state["layers.0.bias"][train[0], 1] = 0.0
    state["layers.1.weight"][train[1], :, 2] = 0.0
    state["layers.1.weight"][train[2], :, 2] = 0.0
    columns = {name: values for name, values in varied.columns.items() if name != "checksum"}
    zoo = write_zoo(tmp_path / "dead", varied.facts, num_rows=12, blocks=[(columns, weights)])
    with caplog.at_level(logging.WARNING, logger="dwf"):
        codec = fit(zoo, run, scale="logarithm", standardise="none")
    assert codec.facts["dead_units"] == 3 and "3 units of" in caplog.text
    codes = codec.encode(torch.from_numpy(weights), zoo.layout)
    log_NU = codes.values[:, :5, -1]
    assert log_NU[train[0], 1] == log_NU[train[1], 2] == log_NU[train[2], 2] == 0
    assert (log_NU == 0).sum() == 3
    assert torch.equal(
        codes.values[train[1], 2, :10],
        torch.from_numpy(zoo.read(train[1:2])[0][[*range(18, 27), 47]]),
    )
    back = codec.decode(codes, zoo.layout)
    torch.testing.assert_close(back, torch.from_numpy(weights), rtol=1e-5, atol=1e-6)


def test_warns_once_that_samples_and_zoo_stand_in_different_scales(make_zoo, tmp_path, run, caplog):
    zoo = make_zoo(widths=(9, 5, 3))
    with caplog.at_level(logging.WARNING, logger="dwf"):
        codec = fit(zoo, run, scale="balanced")
        assert caplog.text.count("not balanced") == 1
        assert "configs/align/balanced.yaml" in caplog.text
        assert codec.facts["log_scale"] > 0.1 and codec.facts["dead_units"] == 0
        caplog.clear()
        moved, _ = balanced(torch.from_numpy(zoo.read()), zoo.layout)
        columns = {name: values for name, values in zoo.columns.items() if name != "checksum"}
        block = (columns, moved.numpy())
        aligned = write_zoo(tmp_path / "balanced", zoo.facts, num_rows=12, blocks=[block])
        codec = fit(aligned, run, scale="balanced")
        assert not caplog.text and codec.facts["log_scale"] < 1e-5
    kept = fit(aligned, run).encode(moved, zoo.layout)
    torch.testing.assert_close(
        codec.encode(moved, zoo.layout).values, kept.values, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("scale", ["balanced", "logarithm"])
@pytest.mark.parametrize("activation", ["gelu", "tanh"])
def test_only_units_behind_relu_and_the_like_can_be_scaled(tmp_path, run, scale, activation):
    zoo = write_random_zoo(tmp_path / "zoo", MLPConfig((9, 5, 3), activation), shape=(1, 3, 3))
    with pytest.raises(ConfigError, match=r"units of layers.0.weight cannot.*set codec.scale to k"):
        fit(zoo, run, scale=scale)
    fit(zoo, run)


def test_a_loaded_codec_scales_as_the_saved_one(make_zoo, tmp_path, run):
    zoo = make_zoo(widths=(9, 5, 4, 3))
    codec = fit(zoo, run, scale="logarithm")
    codec.save(tmp_path / "codec")
    loaded, weights = Codec.load(tmp_path / "codec"), torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert torch.equal(loaded.encode(weights, zoo.layout).values, codes.values)
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))
