"""Embeddings beside spectra: spreads against a plain loop, correlations of planted trends."""

import json

import numpy as np
import pytest
import torch

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.codecs.config import (
    FlatConfig,
    SaneComputeConfig,
    SaneConfig,
    SaneLoopConfig,
    SaneTokensConfig,
)
from dwf.codecs.flat import FlatCodec
from dwf.codecs.sane import SaneCodec
from dwf.commands import COMMANDS
from dwf.errors import ConfigError, TooFewNetworks
from dwf.networks.config import CNNConfig
from dwf.networks.functional import build_network
from dwf.predictors.layers import MEASURES, Layers, compare_layers, spreads
from dwf.predictors.spectra import FEATURES, spectral_features
from dwf.run_folder import RunFolder
from dwf.zoo.layout import Layout
from dwf.zoo.store import write_zoo
from tests.zoos import facts_of

NETWORK = CNNConfig((4, 6, 5), (1, 8, 8), paddings=1, hidden=(6,))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A codec that has hardly learnt, and its zoo: two epochs of twelve networks."""
    folder = tmp_path_factory.mktemp("layers")
    layout, rng = Layout.of(build_network(NETWORK)), np.random.default_rng(0)
    weights_ND = rng.normal(size=(24, layout.size)).astype(np.float32)
    columns = {
        "network": np.repeat(np.arange(12), 2),
        "epoch": np.tile([1, 2], 12),
        "split": np.repeat(["train"] * 6 + ["val"] * 2 + ["test"] * 4, 2),
        "val_accuracy": rng.uniform(size=24),
    }
    facts = facts_of(layout, NETWORK)
    zoo = write_zoo(folder / "zoo", facts, num_rows=24, blocks=[(columns, weights_ND)])
    config = SaneConfig(
        tokens=SaneTokensConfig(9),
        backbone=TokenAutoencoderConfig(width=16, heads=2, depth=1, latent=5),
        training=SaneLoopConfig(
            steps=2, batch_size=4, compute=SaneComputeConfig(device="cpu", workers=0)
        ),
        window=16,
        halo=4,
        val_windows=4,
    )
    run = RunFolder(folder / "run", {"any": "settings"})
    sources = [[(zoo, zoo.rows(split))] for split in ("train", "val")]
    codec = SaneCodec(config).fit(*sources, run=run)
    codec.save(run.path / "codec")
    return codec, zoo, run.path


def test_measures_of_each_layer(made):
    codec, zoo, _ = made
    rows = zoo.rows("test")
    layers = compare_layers(codec, zoo, rows=rows)
    assert layers.names == tuple(
        [f"convs.{i}.weight" for i in range(3)] + [f"linears.{i}.weight" for i in range(2)]
    )
    assert layers.values_NLF.shape == (8, 5, 1 + len(FEATURES))
    expected = spectral_features(zoo.read(rows), zoo.layout)
    np.testing.assert_array_equal(layers.values_NLF[..., 1:], expected)
    np.testing.assert_array_equal(layers.accuracy_N, zoo.columns["val_accuracy"][rows])
    codes = codec.encode(torch.from_numpy(zoo.read(rows)), zoo.layout)
    first_T = codes.shape.positions[:, 1] == 1
    tokens_TC = codes.values[3, first_T].numpy()
    by_hand = np.mean([np.std(tokens_TC[:, c]) ** 2 for c in range(5)]) ** 0.5
    assert layers.values_NLF[3, 1, 0] == pytest.approx(by_hand, rel=1e-5)
    assert spreads(codes).shape == (8, 5)


def planted() -> Layers:
    """Stable ranks that rise with the spread over depth; spreads that fall with accuracy."""
    values_NLF = np.full((6, 4, len(MEASURES)), np.nan)
    accuracy_N = np.array([0.9, 0.1, 0.5, 0.7, 0.2, 0.3])
    spread_NL = np.arange(4) - accuracy_N[:, None]
    values_NLF[..., 0] = spread_NL
    values_NLF[..., MEASURES.index("stable_rank")] = spread_NL**3
    values_NLF[..., MEASURES.index("entropy")] = 0.5
    return Layers(tuple("abcd"), values_NLF, epoch_N=np.arange(6) % 2, accuracy_N=accuracy_N)


def test_planted_correlations_are_told_and_others_are_not():
    told = planted().to_json()["correlations"]
    assert told["spread"] == {
        "spread_over_depth": pytest.approx(1),
        "spread_over_networks": pytest.approx(1),
        "accuracy": pytest.approx(-1),
    }
    assert told["stable_rank"]["spread_over_depth"] == pytest.approx(1)
    nothing = {"spread_over_depth": None, "spread_over_networks": None, "accuracy": None}
    assert told["entropy"] == told["alpha"] == nothing
    json.dumps(planted().to_json(), allow_nan=False)


def test_the_command_writes_figure_and_numbers(made, capsys, tmp_path):
    _, zoo, run = made
    words = [str(zoo.path), "--codec", str(run), "--out", str(tmp_path)]
    COMMANDS["layers"].run(words)
    told = json.loads((tmp_path / "layers-zoo.json").read_text())
    assert told["networks"] == 8 and len(told["mean"]["alpha"]) == 5
    assert (tmp_path / "layers-zoo.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "layers-zoo.png" in said and "with accuracy" in said and "stable_rank" in said


def test_other_codecs_and_no_networks_are_refused(made):
    codec, zoo, _ = made
    with pytest.raises(ConfigError, match=r"codec\.kind = 'flat' has no embedding"):
        compare_layers(FlatCodec(FlatConfig()), zoo, rows=np.arange(2))
    with pytest.raises(TooFewNetworks, match="0 networks to look at"):
        compare_layers(codec, zoo, rows=np.arange(0))
