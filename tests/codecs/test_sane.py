"""The SANE codec: what it learns, saves and loads; an interrupted fit resumes to the same bytes."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf import preemption
from dwf.backbones.config import TokenAutoencoderConfig
from dwf.backbones.linear import ONEDNN, kernel_of
from dwf.codecs.codec import Codec
from dwf.codecs.config import (
    SaneComputeConfig,
    SaneConfig,
    SaneLoopConfig,
    SaneTokensConfig,
    TokenSettings,
)
from dwf.codecs.sane.codec import SaneCodec
from dwf.codecs.tokens.geometry import Geometry
from dwf.errors import (
    ConfigError,
    Preempted,
    RunConflict,
    ShapeMismatch,
    TooFewNetworks,
    TrainingDiverged,
)
from dwf.generators.round_trip import round_trip_error
from dwf.run_folder import RunFolder
from dwf.settings import build

CONFIG = SaneConfig(
    tokens=SaneTokensConfig(17),
    backbone=TokenAutoencoderConfig(width=32, heads=2, depth=1, latent=12),
    training=SaneLoopConfig(
        steps=20,
        batch_size=8,
        learning_rate=3e-3,
        schedule="one_cycle",
        validate_every=10,
        compute=SaneComputeConfig(device="cpu", workers=0),
    ),
    window=20,
    halo=4,
    val_windows=16,
)


def fit(zoos, run, config=CONFIG, seed=0) -> SaneCodec:
    train, val = ([(zoo, zoo.rows(split)) for zoo in zoos] for split in ("train", "val"))
    return SaneCodec(config).fit(train, val, run=run, seed=seed)


def with_training(**changes) -> SaneConfig:
    return replace(CONFIG, training=replace(CONFIG.training, **changes))


def test_it_learns_to_reconstruct(make_zoo, run):
    """Tokens of 17 numbers through 16: far better than the mean, also of held-out networks."""
    zoo = make_zoo(count=40, widths=(16, 8, 4))
    backbone = replace(CONFIG.backbone, latent=16, depth=0)
    config = with_training(steps=200, batch_size=32, learning_rate=2e-2)
    config = replace(config, backbone=backbone, noise=0.0)
    codec = fit([zoo], run, config=replace(config, contrast=0.0))
    assert codec.facts["val"]["explained"] > 0.85
    assert round_trip_error(codec, [(zoo, zoo.rows("test"))])["relative"] < 0.4


@pytest.mark.parametrize("packing", ["rows", "dense"])
def test_codes_are_latents_of_all_tokens(make_zoo, run, packing):
    zoo, config = make_zoo(), replace(CONFIG, tokens=SaneTokensConfig(17, packing))
    codec, weights = fit([zoo], run, config=config), torch.from_numpy(zoo.read())
    codes, geometry = (
        codec.encode(weights, zoo.layout),
        Geometry.of(zoo.layout, TokenSettings(17, packing)),
    )
    assert codes.values.shape == (len(zoo), geometry.num_tokens, 12)
    assert torch.equal(codes.shape.positions, geometry.positions_T3) and codes.shape.mask.all()
    assert codes.shape == codec.shape == SaneCodec.planned_shape(config, [zoo.layout], num_train=8)
    assert codec.decode(codes, zoo.layout).shape == weights.shape
    assert len(codec.encode(weights[:0], zoo.layout)) == 0
    assert codec.decode(codec.encode(weights[:0], zoo.layout), zoo.layout).shape == (0, 1210)
    assert torch.equal(codec.encode_zoo([(zoo, zoo.rows())]).values, codes.values)


def test_a_network_that_fits_a_window_is_coded_in_one_pass(make_zoo, run):
    zoo = make_zoo(widths=(64, 2, 10))
    codec = fit([zoo], run)
    geometry = Geometry.of(zoo.layout, TokenSettings(17))
    assert geometry.num_tokens == 18 == codec.module.window
    weights = torch.from_numpy(zoo.read())
    tokens = codec._scaling(zoo.layout.digest).apply(
        geometry.tokenise(weights), geometry.layer_of_token_T, mask_TC=geometry.mask_TC
    )
    with torch.no_grad():
        wanted = codec.module.encode(tokens, geometry.positions_T3.expand(len(zoo), -1, -1))
    torch.testing.assert_close(codec.encode(weights, zoo.layout).values, wanted)


def test_what_is_not_covered_comes_from_the_template(plant_zoo, run):
    zoo = plant_zoo(batchnorm=True)
    codec = fit(
        [zoo],
        run,
        config=replace(CONFIG, tokens=SaneTokensConfig(5, norms=False), views=("canonical",) * 2),
    )
    weights = torch.from_numpy(zoo.read())
    back = codec.decode(codec.encode(weights, zoo.layout), zoo.layout)
    mean = zoo.read(zoo.rows("train")).astype(np.float64).mean(0)
    covered = np.zeros(zoo.layout.size, bool)
    for start, stop in codec.spans:
        covered[start:stop] = True
    for entry in zoo.layout.entries:
        assert covered[entry.offset : entry.stop].all() == (entry.role in ("weight", "bias"))
    wanted = torch.from_numpy(mean[~covered]).float().expand(len(zoo), -1)
    torch.testing.assert_close(back[:, ~covered], wanted)
    assert not torch.equal(back[0, covered], back[1, covered])


def test_a_saved_codec_is_the_same(make_zoo, run, tmp_path):
    zoo = make_zoo()
    config = with_training(compute=replace(CONFIG.training.compute, kernel=ONEDNN))
    codec = fit([zoo], run, config=config)
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    assert kernel_of(loaded.module) == ONEDNN
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert torch.equal(loaded.encode(weights, zoo.layout).values, codes.values)
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))
    assert loaded.facts == json.loads(json.dumps(codec.facts)) and loaded.config == config
    assert {path.name for path in (tmp_path / "codec").iterdir()} == {
        "codec.json",
        "codec.npz",
        "codec.safetensors",
    }


def test_a_saved_codec_needs_no_deepspeed_and_no_zoo(make_zoo, run, tmp_path):
    fit([make_zoo()], run).save(tmp_path / "codec")
    program = (
        "import sys, torch; from pathlib import Path; from dwf.codecs.codec import Codec\n"
        "codec = Codec.load(Path(sys.argv[1])); layout = codec.layout\n"
        "codec.decode(codec.encode(torch.zeros(2, layout.size), layout), layout)\n"
        "assert 'deepspeed' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "codec")], check=True)


def test_a_damaged_module_is_refused(make_zoo, run, tmp_path):
    fit([make_zoo()], run).save(tmp_path / "codec")
    path = tmp_path / "codec" / "codec.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(RunConflict, match=r"codec.safetensors does not match its checksum"):
        Codec.load(tmp_path / "codec")


# --- several architectures ---------------------------------------------------------------------


@pytest.mark.parametrize("standardise", ["run_time", "per_layer"])
def test_zoos_of_several_architectures_share_a_codec(make_zoo, run, tmp_path, standardise):
    zoos = [make_zoo(), make_zoo(widths=(64, 5, 5, 10), name="other", seed=1)]
    codec = fit(
        zoos, run, config=replace(CONFIG, tokens=SaneTokensConfig(17, standardise=standardise))
    )
    assert codec.facts["architectures"] == 2 and codec.layout.digest == zoos[0].layout.digest
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    for zoo in zoos:
        weights = torch.from_numpy(zoo.read())
        codes = loaded.encode(weights, zoo.layout)
        assert codes.values.shape[1] == Geometry.of(zoo.layout, TokenSettings(17)).num_tokens
        assert torch.equal(codes.values, codec.encode(weights, zoo.layout).values)
        assert loaded.decode(codes, zoo.layout).shape == weights.shape
    codes = loaded.encode(torch.from_numpy(zoos[1].read()), zoos[1].layout)
    with pytest.raises(ShapeMismatch, match="decode them to the layout they were encoded from"):
        loaded.decode(codes, zoos[0].layout)


def test_a_layout_that_it_was_not_fitted_to(make_zoo, run):
    codec, other = fit([make_zoo()], run), make_zoo(widths=(9, 4, 3), name="other")
    with pytest.raises(ShapeMismatch, match=f"layout {other.layout.digest}.*fitted to .*codec_zoo"):
        codec.encode(torch.from_numpy(other.read()), other.layout)
    with pytest.raises(ShapeMismatch, match=f"layout {other.layout.digest}"):
        codec.spans_of(other.layout)


def test_standardised_tokens_are_those_of_each_architecture_alone(make_zoo, run):
    zoos = [make_zoo(), make_zoo(widths=(64, 5, 5, 10), name="other", seed=1)]
    codec = fit(zoos, run)
    for zoo in zoos:
        weights = zoo.read(zoo.rows("train")).astype(np.float64)
        first = zoo.layout.by_name["layers.0.weight"], zoo.layout.by_name["layers.0.bias"]
        numbers = np.concatenate([weights[:, e.offset : e.stop] for e in first], 1)
        scaling = codec._scaling(zoo.layout.digest)
        assert scaling.shift_L[0] == pytest.approx(numbers.mean(), abs=1e-5)
        assert scaling.scale_L[0] == pytest.approx(numbers.std(), rel=1e-5)


# --- training -------------------------------------------------------------------------------


@pytest.mark.parametrize(("dropout", "workers"), [(0.0, 2), (0.2, 0)])
def test_an_interrupted_fit_goes_on_to_the_same_bytes(
    make_zoo, tmp_path, monkeypatch, dropout, workers
):
    zoo, folders = make_zoo(), [tmp_path / "runs" / name for name in ("whole", "cut")]
    config = with_training(compute=replace(CONFIG.training.compute, workers=workers))
    config = replace(config, backbone=replace(CONFIG.backbone, dropout=dropout))
    whole = fit([zoo], RunFolder(folders[0], config), config=config)
    asked = iter([False] * 6 + [True] * 3)
    with monkeypatch.context() as patched:
        for name in ("is_asked", "agreed"):
            patched.setattr(preemption, name, lambda: next(asked, False))
        with pytest.raises(Preempted):
            fit([zoo], RunFolder(folders[1], config), config=config)
    cut = fit([zoo], RunFolder(folders[1], config), config=config)
    for codec, folder in ((whole, folders[0]), (cut, folders[1])):
        codec.save(folder / "saved")
    for name in ("codec.safetensors", "codec.npz", "codec.json"):
        one, other = ((folder / "saved" / name).read_bytes() for folder in folders)
        assert one == other, name


def test_resuming_with_another_token_size_names_the_setting(tmp_path):
    part = RunFolder(tmp_path / "run", CONFIG).part("codec")
    (part.path / "metrics.jsonl").touch()  # something came of it
    with pytest.raises(RunConflict, match=r"a run with tokens.size = 17, this one has 19"):
        RunFolder(tmp_path / "run", replace(CONFIG, tokens=SaneTokensConfig(19)))


def test_a_network_that_is_not_finite_is_named(make_zoo, run):
    zoo = make_zoo()
    broken = zoo.map_row(int(zoo.rows("train")[3])).copy()
    broken[5] = np.nan
    whole = zoo.map_row
    zoo.map_row = lambda row: broken if row == zoo.rows("train")[3] else whole(row)
    with pytest.raises(TrainingDiverged, match=r"shard-00000-of-00001.h5: rows .* not finite"):
        fit([zoo], run, config=with_training(validate_every=1))


def test_no_networks(make_zoo, run):
    zoo = make_zoo()
    with pytest.raises(TooFewNetworks, match="0 networks"):
        SaneCodec(CONFIG).fit([(zoo, zoo.rows()[:0])], [], run=run)


def test_without_held_out_networks(make_zoo, run):
    zoo = make_zoo()
    codec = SaneCodec(CONFIG).fit([(zoo, zoo.rows())], [(zoo, zoo.rows()[:0])], run=run)
    assert codec.facts["val"] == {} and codec.facts["training"]["val_loss"] is None


# --- forecast and settings ----------------------------------------------------------------------


def test_learned_positions_that_are_too_few(make_zoo, run):
    config = replace(CONFIG, backbone=replace(CONFIG.backbone, max_positions=(50, 2, 16)))
    message = r"max_positions = \[50, 2, 16\].*\[74, 2, 16\].*sinusoidal"
    with pytest.raises(ConfigError, match=message):
        fit([make_zoo()], run, config=config)


def test_the_plan_is_what_is_trained(make_zoo, run):
    zoo = make_zoo()
    planned = SaneCodec.planned_module(CONFIG, [zoo.layout])
    shapes = {name: tuple(t.shape) for name, t in planned.state_dict().items()}
    assert shapes == {n: tuple(t.shape) for n, t in fit([zoo], run).module.state_dict().items()}
    assert all(parameter.is_meta for parameter in planned.parameters())


def test_a_plan_without_a_zoo_needs_size_and_positions():
    with pytest.raises(ConfigError, match="max_positions is not set and no zoo"):
        SaneCodec.planned_module(CONFIG, [])
    backbone = replace(CONFIG.backbone, max_positions=(9, 9, 9))
    with pytest.raises(ConfigError, match="size is not set and no zoo"):
        SaneCodec.planned_module(replace(CONFIG, backbone=backbone, tokens=SaneTokensConfig()), [])
    module = SaneCodec.planned_module(replace(CONFIG, backbone=backbone), [])
    assert module.window == 20 and module.token_size == 17


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 20, "halo": 10}, "halo = 10 leaves nothing of a window of 20"),
        ({"views": ["canonical"]}, "two are needed"),
        ({"erase_area": [0.5, 0.1]}, "the least comes first"),
        ({"backbone": {"projection": 0}}, "contrast = 0.05 needs a head"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(SaneConfig, settings, source="test")
