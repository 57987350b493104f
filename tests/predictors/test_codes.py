"""Codes as features: scores of a PCA, embeddings of a tiny SANE, from a run found by its name."""

import shutil

import numpy as np
import pytest
import torch

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.codecs.codec import codec_folder
from dwf.codecs.codes import Codes as CodesOfNetworks
from dwf.codecs.config import (
    PcaConfig,
    SaneComputeConfig,
    SaneConfig,
    SaneLoopConfig,
    SaneTokensConfig,
)
from dwf.codecs.pca import PcaCodec
from dwf.codecs.sane.codec import SaneCodec
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.config import MLPConfig
from dwf.predictors.codes import Codes
from dwf.predictors.config import CodesConfig
from dwf.predictors.examples import Examples
from dwf.predictors.head_config import RidgeConfig
from dwf.predictors.predictor import Predictor
from dwf.run_folder import RunFolder, RunPart
from dwf.zoo.store import Zoo
from tests.predictors.made import made_zoo, split

SANE = SaneConfig(
    tokens=SaneTokensConfig(9),
    backbone=TokenAutoencoderConfig(width=16, heads=2, depth=1, latent=5),
    training=SaneLoopConfig(
        steps=4,
        batch_size=4,
        validate_every=4,
        compute=SaneComputeConfig(device="cpu", workers=0),
    ),
    window=8,
    halo=2,
    val_windows=4,
)


@pytest.fixture
def planted(tmp_path):
    """200 networks near 5 directions, and what the first of them says."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(200, 5)) * [9, 5, 3, 2, 1]
    weights = spread @ rng.normal(size=(5, 82)) + 0.01 * rng.normal(size=(200, 82))
    return made_zoo(tmp_path / "zoo", weights=weights), spread[:, 0]


@pytest.fixture
def run(tmp_path) -> RunPart:
    return RunPart(tmp_path / "runs" / "baselines" / "codes")


def fitted(codec, tmp_path, *zoos: Zoo):
    """A codec as a generator's run has it, without the density."""
    run = RunFolder(tmp_path / "runs" / "generator", {"any": "settings"})
    sources = [(zoo, np.arange(len(zoo))) for zoo in zoos]
    codec.fit(sources, sources, run=run, seed=0)
    codec.save(codec_folder(run))
    return codec


def test_scores_on_components_tell_what_lies_along_them(planted, run, tmp_path):
    zoo, values = planted
    codec = fitted(PcaCodec(PcaConfig(components=5)), tmp_path, zoo)
    train, val = split(zoo, values, 50)
    predictor = Codes(CodesConfig("generator", pool="none"))
    predictor.fit(train, val, run=run, seed=0)
    said = predictor.predict(val.sources)
    assert np.square(said - val.values_NP).mean() < 1e-4 * val.values_NP.var()
    scores = codec.encode(torch.from_numpy(zoo.read()), zoo.layout).values.numpy()
    features = predictor.features(val.sources).rows(np.arange(50))
    np.testing.assert_allclose(features, scores[150:], rtol=1e-5, atol=1e-5)
    predictor.save(tmp_path / "kept")
    shutil.rmtree(tmp_path / "runs" / "generator")  # it is not needed any more
    np.testing.assert_array_equal(Predictor.load(tmp_path / "kept").predict(val.sources), said)


@pytest.mark.parametrize("pool", ["mean", "layers", "none"])
def test_embeddings_of_sane_are_means_of_its_latents(planted, run, tmp_path, pool):
    zoo, values = planted
    codec = fitted(SaneCodec(SANE), tmp_path, zoo)
    train, val = split(zoo, values, 50)
    predictor = Codes(CodesConfig("generator", pool=pool))
    predictor.fit(train, val, run=run, seed=0)
    codes: CodesOfNetworks = codec.encode(torch.from_numpy(zoo.read()[150:]), zoo.layout)
    layer_T = codes.shape.positions[:, 1]
    parts = {
        "mean": [codes.values.mean(1)],
        "layers": [codes.values[:, layer_T == layer].mean(1) for layer in layer_T.unique()],
        "none": codes.values.unbind(1),
    }
    features = predictor.features(val.sources)
    expected = torch.cat(list(parts[pool]), 1).numpy()
    assert features.shape == (50, {"mean": 5, "layers": 10, "none": 50}[pool])
    # The order of all numbers is the codec's own.
    found = features.rows(np.arange(50))
    both = (np.sort(found), np.sort(expected)) if pool == "none" else (found, expected)
    np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-6)
    predictor.save(tmp_path / "kept")
    np.testing.assert_array_equal(
        Predictor.load(tmp_path / "kept").predict(val.sources), predictor.predict(val.sources)
    )


def test_embeddings_of_several_architectures_have_one_size_by_the_mean_alone(run, tmp_path):
    zoos = [
        made_zoo(tmp_path / str(i), MLPConfig(widths), seed=i)
        for i, widths in enumerate([(8, 6, 4), (8, 6, 5, 4)])
    ]
    fitted(SaneCodec(SANE), tmp_path, *zoos)
    sources = [(zoo, np.arange(40)) for zoo in zoos]
    told = Examples(sources, ("value",), np.arange(80.0)[:, None])
    predictor = Codes(CodesConfig("generator"))
    predictor.fit(told, told, run=run, seed=0)
    assert predictor.predict(sources).shape == (80, 1)
    with pytest.raises(ShapeMismatch, match="embeddings of 10 and 15 numbers"):
        Codes(CodesConfig("generator", pool="layers")).fit(told, told, run=run, seed=0)


def test_a_run_without_a_codec_is_named(planted, run):
    zoo, values = planted
    train, val = split(zoo, values, 50)
    with pytest.raises(ConfigError, match=r"generator = 'nobody': there is no codec at nobody"):
        Codes(CodesConfig("nobody", head=RidgeConfig())).fit(train, val, run=run, seed=0)
