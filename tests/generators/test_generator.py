"""Generators: saved and loaded they draw the same; moments and round-trip error against numpy's."""

import dataclasses

import numpy as np
import pytest
import torch

from dwf.backbones.config import (
    LongTransformerConfig,
    TokenAutoencoderConfig,
    TransformerConfig,
)
from dwf.codecs.config import (
    FunctionsConfig,
    SaneComputeConfig,
    SaneConfig,
    SaneLoopConfig,
    SaneTokensConfig,
    TokensConfig,
)
from dwf.densities.config import GaussianConfig, KdeConfig
from dwf.errors import RunConflict
from dwf.generators import generator as module
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.generator import Generator, read_head
from dwf.generators.round_trip import round_trip_error
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator


@pytest.fixture(params=["flow_on_pca", "gaussian_on_weights"])
def fitted(request, make_zoo, tmp_path) -> Generator:
    make_zoo()
    return fit_generator(request.getfixturevalue(request.param), tmp_path, name="fitted")


def test_saved_and_loaded_it_draws_the_same_bit_for_bit(fitted, tmp_path):
    fitted.save(tmp_path / "copy")
    drawn = fitted.sample(7, seed=3)
    for folder in (tmp_path / "copy", tmp_path / "runs" / "fitted"):
        loaded = Generator.load(folder)
        assert torch.equal(loaded.sample(7, seed=3), drawn)
        assert loaded.digest == fitted.digest
        assert loaded.codec.layout == fitted.codec.layout


def test_a_sample_depends_on_its_seed_and_number_alone(fitted, monkeypatch):
    drawn = fitted.sample(9, seed=3)
    torch.testing.assert_close(fitted.sample(4, seed=3), drawn[:4], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fitted.sample(2, seed=3, first=6), drawn[6:8], rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * fitted.codec.layout.size * 2)
    blocks = list(fitted.stream(9, seed=3))
    assert [first for first, _ in blocks] == [0, 2, 4, 6, 8]
    streamed = torch.cat([block for _, block in blocks])
    torch.testing.assert_close(streamed, drawn, rtol=1e-5, atol=1e-6)
    assert (fitted.sample(9, seed=4) - drawn).abs().min(1).values.max() > 1e-4


def test_gaussian_samples_have_the_zoos_moments(make_zoo, tmp_path, gaussian_on_weights):
    zoo = make_zoo(count=40)
    generator = fit_generator(gaussian_on_weights, tmp_path, name="fitted")
    train = zoo.read(zoo.rows(split="train")).astype(np.float64)
    drawn = generator.sample(4000, seed=0).double().numpy()
    error = np.abs(drawn.mean(0) - train.mean(0)) / train.std(0)
    assert error.max() < 6 / np.sqrt(4000)
    np.testing.assert_allclose(drawn.var(0), train.var(0, ddof=1), rtol=0.15)


def test_round_trip_error_is_brute_force(make_zoo, tmp_path, flow_on_pca):
    zoo = make_zoo()
    codec = fit_generator(flow_on_pca, tmp_path, name="fitted").codec
    rows = zoo.rows(split="val")
    weights = zoo.read(rows).astype(np.float64)
    back = codec.decode(codec.encode_zoo([(zoo, rows)]), zoo.layout).numpy()
    mean = zoo.read(zoo.rows(split="train")).astype(np.float64).mean(0)
    error = round_trip_error(codec, [(zoo, rows)])
    lost = ((back - weights) ** 2).sum()
    np.testing.assert_allclose(error["rmse"], np.sqrt(lost / weights.size), rtol=1e-5)
    relative = np.sqrt(lost / ((weights - mean) ** 2).sum())
    np.testing.assert_allclose(error["relative"], relative, rtol=1e-5)
    captured = codec.facts["variance_captured_held_out"]
    np.testing.assert_allclose(error["relative"] ** 2, 1 - captured, rtol=1e-4)
    assert round_trip_error(codec, [(zoo, rows[:0])]) is None


def test_refuses_a_folder_without_a_generator(tmp_path):
    with pytest.raises(RunConflict, match=r"generator\.json is missing.*dwf generator"):
        Generator.load(tmp_path / "runs" / "nothing")


def test_refuses_one_that_is_not_fitted_to_the_end(fitted, tmp_path):
    for file in (tmp_path / "runs" / "fitted" / "density").iterdir():
        file.unlink()
    with pytest.raises(RunConflict, match=r"not fitted to the end.*--resume --name fitted"):
        Generator.load(tmp_path / "runs" / "fitted")


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "dwf-generator", "version": 9}'])
def test_refuses_another_format(tmp_path, text):
    (tmp_path / "generator.json").write_text(text)
    with pytest.raises(RunConflict, match=r"generator\.json"):
        read_head(tmp_path)


def test_a_kde_on_tokens_is_a_generator_like_any_other(make_zoo, tmp_path, kde_on_neurons):
    make_zoo()
    fitted = fit_generator(kde_on_neurons, tmp_path, name="fitted")
    folder = tmp_path / "runs" / "fitted"
    loaded = Generator.load(folder)
    drawn = fitted.sample(5, seed=1)
    assert torch.equal(loaded.sample(5, seed=1), drawn)
    assert torch.equal(loaded.sample(2, seed=1, first=3), drawn[3:])
    whole = (folder / "density" / "anchors.npy").read_bytes()
    for name in ("anchors.npy", "kde.pt"):
        (folder / "density" / name).unlink()
        assert not Generator.is_whole(folder)
        with pytest.raises(RunConflict, match="not fitted to the end"):
            Generator.load(folder)
        fit_generator(kde_on_neurons, tmp_path, name="fitted")
    assert (folder / "density" / "anchors.npy").read_bytes() == whole


SANE = SaneConfig(
    tokens=SaneTokensConfig(25),
    backbone=TokenAutoencoderConfig(width=16, heads=2, depth=1, latent=6),
    training=SaneLoopConfig(steps=3, batch_size=4, compute=SaneComputeConfig(device="cpu")),
    window=20,
    halo=4,
    val_windows=4,
)


@pytest.mark.parametrize("codec", [TokensConfig(size=25), SANE], ids=lambda codec: codec.kind)
@pytest.mark.parametrize("density", ["flow", "long flow", "kde"])
def test_any_density_takes_any_tokens(make_zoo, tmp_path, flow_on_pca, codec, density):
    """Also a flow over SANE's latents: a transformer takes the place of the perceptron."""
    make_zoo()
    backbone = TransformerConfig(width=16, heads=2, depth=1)
    if density == "long flow":
        backbone = LongTransformerConfig(width=16, heads=2, depth=2, window=8)
    flow = dataclasses.replace(flow_on_pca.density, backbone=backbone)
    chosen = KdeConfig() if density == "kde" else flow
    config = dataclasses.replace(flow_on_pca, codec=codec, density=chosen, gate=None)
    fitted = fit_generator(config, tmp_path, name="fitted")
    codes = fitted.density.sample(3, seed=0)
    width = 25 if codec.kind == "tokens" else 6
    assert (
        codes.values.shape == (3, 16 * 3 + 10, width)
        and not codes.values[:, ~codes.shape.mask].any()
    )
    drawn = fitted.sample(3, seed=0)
    assert drawn.isfinite().all() and drawn.std(0).min() > 0
    assert torch.equal(Generator.load(tmp_path / "runs" / "fitted").sample(3, 0), drawn)


def test_sane_learns_from_zoos_of_other_architectures_too(make_zoo, tmp_path):
    make_zoo()
    make_zoo(widths=(64, 8, 10), name="narrow")
    config = GeneratorConfig("small", SANE, density=KdeConfig(), codec_zoos=("narrow",), gate=None)
    fitted = fit_generator(config, tmp_path, name="fitted")
    assert len(fitted.codec.layouts) == 2 and len(fitted.density.rows_A) == 8
    drawn = sample_networks(SampleConfig("fitted", count=2), tmp_path, name="drawn")
    assert drawn.facts.network.widths == (64, 16, 10)


def test_a_generator_says_in_a_line_what_it_is(make_zoo, tmp_path, gaussian_on_weights):
    zoo = make_zoo()
    fit_generator(gaussian_on_weights, str(tmp_path), name="fitted")
    generator = Generator.load(str(tmp_path / "runs" / "fitted"))
    num = len(zoo.rows("train", "last"))
    told = f"Generator(flat + gaussian, of zoo small ({num} training networks))"
    assert repr(generator) == told
    assert "network.kind = &#x27;mlp&#x27;" in generator._repr_html_()
    part = dataclasses.replace(gaussian_on_weights, networks=5)
    subset = fit_generator(part, str(tmp_path), name="part")
    assert f"(first 5 of {num} training networks)" in repr(subset)


def test_samples_tell_what_no_weights_reach_of_their_functions(make_zoo, tmp_path):
    zoo = make_zoo(count=12, widths=(64, 6, 5, 10))
    codec = FunctionsConfig(inputs=60, functions=12, components=8)
    config = GeneratorConfig(zoo="small", codec=codec, density=GaussianConfig())
    generator = fit_generator(config, tmp_path, name="functions")
    how = SampleConfig(generator="functions", count=7, seed=3)
    told = sample_networks(how, tmp_path, name="drawn").facts.sampled.unreached
    codes, found = generator.density.sample(7, 3), []
    generator.codec.draw(codes, zoo.layout, seed=3, told=found.append)
    share = 100 * torch.cat(found)
    assert share.shape == (7, 1) and share.min() > 0.1
    assert told == {"layer 2": f"{share.mean():.3g} %, at most {share.max():.3g} % (n = 7)"}
