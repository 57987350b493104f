"""Too little memory for a training: told by its plan, refused where it starts, with what fits."""

import re
from dataclasses import replace

import pytest

from dwf.backbones.config import LongTransformerConfig, TokenAutoencoderConfig
from dwf.codecs.config import SaneComputeConfig, SaneConfig, SaneLoopConfig, TokensConfig
from dwf.densities.config import KdeConfig
from dwf.errors import TooLarge
from dwf.generators.config import GeneratorConfig
from dwf.generators.stage import fit_generator, plan
from dwf.training import forecast
from dwf.training.config import LoopComputeConfig, LoopConfig

STEPS = {"steps": 2, "batch_size": 8, "validate_every": 2}
TRAINING = LoopConfig(**STEPS, compute=LoopComputeConfig(threads=1, device="cpu"))
OF_SANE = SaneLoopConfig(**STEPS, compute=SaneComputeConfig(threads=1, device="cpu"))


@pytest.fixture
def token_flow(flow_on_pca):
    backbone = LongTransformerConfig(width=16, heads=2, depth=1, window=4)
    density = replace(flow_on_pca.density, backbone=backbone, training=TRAINING)
    return replace(flow_on_pca, codec=TokensConfig(size=32, packing="dense"), density=density)


@pytest.fixture
def sane():
    backbone = TokenAutoencoderConfig(width=16, heads=2, depth=1, latent=8)
    codec = SaneConfig(window=16, halo=4, backbone=backbone, training=OF_SANE)
    return GeneratorConfig(zoo="small", codec=codec, density=KdeConfig(), gate=None)


@pytest.mark.parametrize("part", ["density", "codec"])
def test_the_setting_that_is_named_fits(make_zoo, tmp_path, monkeypatch, part, token_flow, sane):
    make_zoo(20)
    config = token_flow if part == "density" else sane
    said = plan(config, tmp_path, name="g")
    assert "WARNING: with the" not in said
    (line,) = re.findall(r"^memory per process: (.*) MiB$", said, re.MULTILINE)
    sizes = dict(each.rsplit(" ", 1) for each in line.split(", "))
    total, activations = (float(sizes[name]) * 2**20 for name in ("total", "activations"))
    # Room for all but 0.6 of the activations: micro-batches of a quarter fit, halves do not.
    monkeypatch.setattr(forecast, "machine_bytes", lambda: int(total - 0.6 * activations))
    told = rf"set --{part}.training.accumulate 4, which fits"
    assert re.search(
        rf"WARNING: with the 0.0 GiB of this machine it is refused: {told}",
        (plan(config, tmp_path, name="g")),
    )
    with pytest.raises(TooLarge, match=rf"{part}.training: training takes .* {told}"):
        fit_generator(config, tmp_path, name="g")
    assert not [*(tmp_path / "runs" / "g").rglob("metrics.jsonl")], "nothing was trained"
    settings = vars(config)[part]
    again = replace(settings, training=replace(settings.training, accumulate=4))
    fit_generator(replace(config, **{part: again}), tmp_path, name="fits")


def test_where_no_micro_batch_fits_other_settings_are_named(
    make_zoo, tmp_path, monkeypatch, token_flow
):
    make_zoo(20)
    monkeypatch.setattr(forecast, "machine_bytes", lambda: 1000)
    told = r"try --density.backbone.checkpointing, a smaller network"
    with pytest.raises(TooLarge, match=told):
        fit_generator(token_flow, tmp_path, name="g")
