"""Networks of several widths in one sequence."""

import numpy as np
import pytest
import torch

from dwf.codecs.codec import Codec
from dwf.codecs.codes import join
from dwf.codecs.config import FlatConfig, NeuronsConfig
from dwf.codecs.embedding import pool
from dwf.codecs.flat import FlatCodec
from dwf.codecs.neurons.codec import NeuronsCodec
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.config import CNNConfig, MLPConfig
from tests.codecs.zoos import write_random_zoo

MLPS = [MLPConfig((9, 5, 4, 3)), MLPConfig((9, 3, 6, 3)), MLPConfig((9, 2, 2, 3))]
CNNS = [
    CNNConfig(channels, (1, 8, 8), norm="batch", hidden=(hidden,))
    for channels, hidden in (((2, 4), 5), ((3, 2), 7))
]
KINDS = pytest.mark.parametrize(
    ("configs", "shape"), [(MLPS, (1, 3, 3)), (CNNS, (1, 8, 8))], ids=["mlp", "cnn"]
)


def write(tmp_path, configs, shape):
    sizes = (8, 5, 6)
    return [
        write_random_zoo(tmp_path / f"zoo{i}", config, shape=shape, count=sizes[i], seed=i)
        for i, config in enumerate(configs)
    ]


def fit(zoos, run, **settings) -> NeuronsCodec:
    sources = [(zoo, zoo.rows(split="train")) for zoo in zoos]
    return NeuronsCodec(NeuronsConfig(**settings)).fit(sources, [], run=run)


@KINDS
@pytest.mark.parametrize("standardise", ["none", "per_feature", "per_weight"])
@pytest.mark.parametrize("scale", ["kept", "logarithm"])
def test_networks_of_each_width_come_back(tmp_path, run, configs, shape, standardise, scale):
    zoos = write(tmp_path, configs, shape=shape)
    codec = fit(zoos, run, standardise=standardise, scale=scale)
    like = None
    for kind, zoo in enumerate(zoos):
        weights = torch.from_numpy(zoo.read())
        codes = codec.encode(weights, zoo.layout)
        assert codes.kind_N.tolist() == [kind] * len(zoo)
        assert like is None or codes.shape == like.shape
        like = codes
        assert not codes.values[:, ~codes.shape.mask[kind]].any()
        logs = sum(len(p) for p in codec._tokens.places[kind][:-1]) * (scale == "logarithm")
        assert codes.shape.present_AK[kind].sum() == len(zoo.layout.learnt(weights)[0]) + logs
        flat = codes.flatten()
        flat[~codes.shape.present_AK[codes.kind_N]] = torch.nan  # what a density may leave there
        back = codec.decode(codes.shape.fill(flat, codes.kind_N), zoo.layout)
        pair = zoo.layout.learnt(back), zoo.layout.learnt(weights)
        torch.testing.assert_close(*pair, rtol=2e-5, atol=1e-5)
    planned = codec.planned_shape(codec.config, [zoo.layout for zoo in zoos], num_train=0)
    assert planned == like.shape == codec.shape


def test_a_token_has_the_same_number_in_the_same_slot(tmp_path, run):
    """By hand: layers of 5, 3, 2 and of 4, 6, 2 units."""
    zoos = write(tmp_path, MLPS, shape=(1, 3, 3))
    codec = fit(zoos, run, standardise="none")
    for zoo, (_, first, second, _) in zip(zoos, (config.widths for config in MLPS), strict=True):
        weights = torch.from_numpy(zoo.read())
        codes, state = codec.encode(weights, zoo.layout), zoo.layout.unflatten(weights)
        assert codes.shape.sections == ((5, 10), (4, 9), (2, 7), (1, 3))
        assert codes.shape.positions[:, 1].tolist() == [0] * 5 + [1] * 6 + [2]
        wanted = torch.zeros(len(zoo), 12, 10)
        wanted[:, :first, :9] = state["layers.0.weight"]
        wanted[:, :first, 9] = state["layers.0.bias"]
        wanted[:, 5 : 5 + second, :first] = state["layers.1.weight"]
        wanted[:, 5 : 5 + second, 5] = state["layers.1.bias"]
        wanted[:, 5 : 5 + second, 6:9] = state["layers.2.weight"].transpose(1, 2)
        wanted[:, 11, :3] = state["layers.2.bias"]
        assert torch.equal(codes.values, wanted)


@pytest.mark.parametrize("standardise", ["per_feature", "per_weight"])
def test_a_feature_is_standardised_over_all_networks_that_have_it(tmp_path, run, standardise):
    zoos = write(tmp_path, MLPS, shape=(1, 3, 3))
    plain, codec = fit(zoos, run, standardise="none"), fit(zoos, run, standardise=standardise)
    every = [(zoo, np.arange(len(zoo))) for zoo in zoos]
    is_train = np.concatenate([zoo.columns["split"] == "train" for zoo in zoos])
    before, after = plain.encode_zoo(every), codec.encode_zoo(every)
    present = before.shape.mask[before.kind_N]
    layer_T = before.shape.positions[:, 1]
    for t in range(12):
        like = (layer_T == layer_T[t]).nonzero()[:, 0] if standardise == "per_feature" else [t]
        for c in range(10):
            seen = [
                float(before.values[n, s, c])
                for n in np.flatnonzero(is_train)
                for s in like
                if present[n, s, c]
            ]
            if not seen:
                continue
            wanted = (before.values[:, t, c].double() - np.mean(seen)) / np.std(seen)
            there = present[:, t, c]
            torch.testing.assert_close(
                after.values[there, t, c].double(), wanted[there], rtol=1e-4, atol=1e-5
            )


def test_codes_of_several_zoos_are_one(tmp_path, run, monkeypatch):
    zoos = write(tmp_path, MLPS, shape=(1, 3, 3))
    codec = fit(zoos, run)
    every = [(zoo, np.arange(len(zoo))) for zoo in zoos]
    codes = codec.encode_zoo(every)
    parts = [codec.encode(torch.from_numpy(zoo.read()), zoo.layout) for zoo in zoos]
    joined = join(parts)
    monkeypatch.setattr("dwf.codecs.codes.MOST_HELD", 0)
    for found in (joined, codec.encode_zoo(every, tmp_path / "train.npy")):
        assert torch.equal(found.values, codes.values) and torch.equal(found.kind_N, codes.kind_N)
    assert codes.kind_N.tolist() == [0] * 8 + [1] * 5 + [2] * 6
    none = codec.encode_zoo([(zoo, rows[:0]) for zoo, rows in every])
    assert none.shape == codes.shape and len(none) == 0
    with pytest.raises(ShapeMismatch, match=rf"11 of 19 .*{zoos[0].layout.digest}.*Codes.take"):
        codec.decode(codes, zoos[0].layout)
    some = codes.take(codes.kind_N == 1)
    assert torch.equal(codec.decode(some, zoos[1].layout), codec.decode(parts[1], zoos[1].layout))


def test_an_embedding_is_the_mean_of_the_tokens_that_a_network_has(tmp_path, run):
    zoos = write(tmp_path, MLPS, shape=(1, 3, 3))
    codes = fit(zoos, run).encode(torch.from_numpy(zoos[2].read()), zoos[2].layout)
    found = pool(codes, "mean")
    for c in range(10):
        there = codes.shape.mask[2, :, c]
        wanted = codes.values[:, there, c].mean(1) if there.any() else torch.zeros(6)
        torch.testing.assert_close(found[:, c], wanted)


@KINDS
def test_a_loaded_codec_takes_the_same_architectures(tmp_path, run, configs, shape):
    zoos = write(tmp_path, configs, shape=shape)
    codec = fit(zoos, run, scale="balanced")
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    assert loaded.facts == codec.facts and codec.facts["architectures"] == len(zoos)
    for zoo in zoos:
        weights = torch.from_numpy(zoo.read())
        codes = codec.encode(weights, zoo.layout)
        again = loaded.encode(weights, zoo.layout)
        assert (
            torch.equal(again.values, codes.values) and again.shape.layouts == codes.shape.layouts
        )
        assert torch.equal(loaded.decode(again, zoo.layout), codec.decode(codes, zoo.layout))
        assert loaded.layout_of(zoo.layout.digest) == zoo.layout
        assert loaded.spans_of(zoo.layout) == zoo.layout.spans()


def test_one_architecture_gives_the_codes_that_it_gives_alone(tmp_path, run):
    """Zoos of one layout are one architecture, with the plain masks."""
    first = write_random_zoo(tmp_path / "a", MLPS[0], shape=(1, 3, 3), seed=0)
    second = write_random_zoo(tmp_path / "b", MLPS[0], shape=(1, 3, 3), seed=1)
    codes = fit([first, second], run).encode_zoo([(first, np.arange(6)), (second, np.arange(6))])
    assert (
        codes.shape.layouts == (first.layout.digest,)
        and codes.kind_N is None
        and codes.shape.mask.dim() == 2
    )


def test_other_architectures_are_refused(tmp_path, run):
    zoos = write(tmp_path, MLPS, shape=(1, 3, 3))
    codec = fit(zoos[:2], run)
    with pytest.raises(ShapeMismatch, match=r"fitted to .*among more_zoos"):
        codec.encode(torch.from_numpy(zoos[2].read()), zoos[2].layout)
    deeper = write_random_zoo(tmp_path / "deeper", MLPConfig((9, 5, 3)), shape=(1, 3, 3))
    with pytest.raises(ConfigError, match="2 and 1 hidden layers"):
        fit([zoos[0], deeper], run)
    sources = [(zoo, zoo.rows(split="train")) for zoo in zoos]
    with pytest.raises(ShapeMismatch, match=r"one architecture; .*'neurons' .*more_zoos"):
        FlatCodec(FlatConfig()).fit(sources, [], run=run)
