"""What codecs declare of themselves, against what they do; and a codec that dwf does not know."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, get_args

import pytest
import torch
from torch import nn

from dwf.backbones.autoencoder_config import (
    FoldedAutoencoderConfig,
    PerceptronAutoencoderConfig,
    StridedAutoencoderConfig,
)
from dwf.backbones.config import TokenAutoencoderConfig
from dwf.cluster.config import RankedLaunch
from dwf.codecs.codes import CodeShape
from dwf.codecs.config import (
    CODECS,
    CodecConfig,
    CodecSettings,
    ConvAutoencoderConfig,
    FlatConfig,
    FunctionsConfig,
    NeuronsConfig,
    PcaConfig,
    SaneComputeConfig,
    SaneConfig,
    SaneLoopConfig,
    SaneTokensConfig,
    TokensConfig,
    VaeConfig,
)
from dwf.codecs.several import SeveralLayouts
from dwf.codecs.trained import TrainedCodec
from dwf.compute import Gpus
from dwf.densities.config import GaussianConfig
from dwf.errors import ConfigError, ShapeMismatch
from dwf.generators.config import GeneratorConfig
from dwf.generators.plan import parts_that_train, with_engine
from dwf.generators.stage import plan
from dwf.networks.config import MLPConfig
from dwf.settings import Parsed, find
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.task import Share
from tests.codecs.zoos import layout_of

TINY = SaneConfig(
    tokens=SaneTokensConfig(17),
    backbone=TokenAutoencoderConfig(width=16, heads=2, depth=1, latent=6),
    training=SaneLoopConfig(
        steps=2, batch_size=4, compute=SaneComputeConfig(device="cpu", workers=0)
    ),
    window=20,
    halo=4,
    val_windows=4,
)
LOOP = LoopConfig(steps=2, batch_size=4, compute=LoopComputeConfig(device="cpu"))
CONFIGS = [
    FlatConfig(),
    PcaConfig(components=3),
    NeuronsConfig(),
    NeuronsConfig(scale="logarithm"),
    FunctionsConfig(inputs=100, components=20, functions=16),
    TokensConfig(),
    TINY,
    ConvAutoencoderConfig(backbone=StridedAutoencoderConfig((4, 4), 3, 5), training=LOOP),
    ConvAutoencoderConfig(backbone=FoldedAutoencoderConfig(3, (2, 2), (2, 4)), training=LOOP),
    VaeConfig(backbone=PerceptronAutoencoderConfig(8, 5), training=LOOP),
]
each_codec = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.words)


def fit(config, zoos, run):
    train, val = ([(zoo, zoo.rows(split)) for zoo in zoos] for split in ("train", "val"))
    return find(CODECS, config.kind)(config).fit(train, val, run=run, seed=0)


def test_all_codecs_are_asked():
    assert {config.kind for config in CONFIGS} == {each.kind for each in get_args(CodecConfig)}


@each_codec
def test_codes_have_the_shape_that_was_planned(make_zoo, run, config):
    zoo = make_zoo()
    planned = find(CODECS, config.kind).planned_shape(
        config, [zoo.layout], num_train=len(zoo.rows("train"))
    )
    codec = fit(config, [zoo], run=run)
    codes = codec.encode(torch.from_numpy(zoo.read()), zoo.layout)
    assert codes.shape == codec.shape == planned
    assert codes.shape == codec.encode_zoo([(zoo, zoo.rows("test")[:0])]).shape
    assert (planned.sections is not None) == config.makes_tokens
    assert codes.flatten().shape == (len(zoo), planned.size)
    assert torch.equal(planned.fill(codes.flatten()).flatten(), codes.flatten())


def test_an_open_size_is_the_most_it_can_be(make_zoo, run):
    zoo, config = make_zoo(), PcaConfig(variance=0.5)
    num_train = len(zoo.rows("train"))
    codec = fit(config, [zoo], run=run)
    planned = find(CODECS, "pca").planned_shape(config, [zoo.layout], num_train=num_train)
    assert codec.shape.size < planned.size == num_train - 1
    assert config.has_open_size and not PcaConfig().has_open_size


@each_codec
@pytest.mark.parametrize("widths", [(9, 4, 3), (64, 16, 12, 5, 10), (9, 3)])
def test_the_shape_for_mlps_is_the_one_that_is_planned(config, widths):
    planned_shape = find(CODECS, config.kind).planned_shape
    said, layout = config.shape_of_mlp(widths, 8), layout_of(MLPConfig(widths))
    if said is None:
        return
    planned = planned_shape(config, [layout], num_train=8)
    assert (said.size, said.sections) == (planned.size, planned.sections)


@each_codec
def test_only_what_is_lossless_comes_back(make_zoo, run, config):
    zoo = make_zoo()
    codec, rows = fit(config, [zoo], run=run), zoo.rows("test")
    weights_ND = torch.from_numpy(zoo.read(rows))
    back_ND = codec.decode(codec.encode(weights_ND, zoo.layout), zoo.layout)
    error = (back_ND - weights_ND).abs().max().item()
    assert (error < 1e-5) == config.is_lossless


@each_codec
def test_only_a_codec_with_a_derivative_lets_gradients_through(make_zoo, run, config):
    """The derivative along a direction, by differences."""
    zoo = make_zoo()
    codec = fit(config, [zoo], run=run)
    codes = codec.encode(torch.from_numpy(zoo.read(zoo.rows("test"))), zoo.layout)
    values = codes.values.clone().requires_grad_()
    if not config.has_derivative:
        try:
            decoded_ND = codec.decode(replace(codes, values=values), zoo.layout)
        except RuntimeError:
            return  # numpy takes no tensor that has a gradient
        assert not decoded_ND.requires_grad
        return
    decoded_ND = codec.decode(replace(codes, values=values), zoo.layout)
    weights_D = torch.randn(zoo.layout.size, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((decoded_ND @ weights_D).sum(), values)
    step = 1e-2 * torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    moved_ND = codec.decode(replace(codes, values=codes.values + step), zoo.layout)
    found = ((moved_ND - decoded_ND) @ weights_D).sum().item()
    assert found == pytest.approx((gradient * step).sum().item(), rel=0.02, abs=1e-2)


@each_codec
def test_only_what_mixes_makes_one_sequence_of_two_architectures(make_zoo, run, config):
    zoos = [make_zoo(), make_zoo(widths=(64, 12, 10), name="narrow")]
    if not issubclass(find(CODECS, config.kind), SeveralLayouts):
        with pytest.raises(ShapeMismatch):
            fit(config, zoos, run=run)
        return
    codec = fit(config, zoos, run=run)
    assert codec.shape.is_mixed == config.mixes
    shapes = [codec.encode(torch.from_numpy(zoo.read()), zoo.layout).shape for zoo in zoos]
    assert (shapes[0] == shapes[1]) == config.mixes
    for zoo in zoos:
        assert codec.layout_of(zoo.layout.digest) == zoo.layout
        assert len(codec.template_of(zoo.layout)) == zoo.layout.size
    with pytest.raises(ShapeMismatch, match=r"layout other.*fitted to .*give it networks"):
        codec.layout_of("other")


def test_the_units_order_counts_where_a_codec_says_so(make_zoo, run):
    """Reordering the first hidden layer moves numbers within the second's tokens, or does not."""
    zoo = make_zoo(widths=(64, 6, 5, 10))
    weights_ND = torch.from_numpy(zoo.read())
    state = zoo.layout.unflatten(weights_ND.clone())
    order = torch.arange(6).flip(0)
    names = [entry.name for entry in zoo.layout.entries]
    first, bias, second = names[0], names[1], names[2]
    state[first], state[bias] = state[first][:, order], state[bias][:, order]
    state[second] = state[second][:, :, order]
    codec = fit(NeuronsConfig(standardise="none"), [zoo], run=run)
    before, after = (
        codec.encode(each, zoo.layout) for each in (weights_ND, zoo.layout.flatten(state))
    )
    second_T = before.shape.positions[:, 1] == 1
    moved = not torch.equal(before.values[:, second_T], after.values[:, second_T])
    assert moved and codec.config.orders_units


# --- a trained codec of one's own ------------------------------------------------------------


@dataclass(frozen=True)
class OwnConfig(CodecSettings):
    """Settings of a codec that dwf does not know."""

    latent: int = 7
    training: LoopConfig = field(default_factory=lambda: LoopConfig(steps=9, batch_size=8))
    kind: Literal["own"] = "own"
    is_lossless: ClassVar[bool] = False


class OwnCodec(TrainedCodec):
    """A linear autoencoder."""

    @classmethod
    def planned_shape(cls, config, layouts, num_train):
        return CodeShape.vectors(layouts[0].digest, config.latent)

    @classmethod
    def planned_module(cls, config, layouts):
        if not layouts:
            raise ConfigError("no zoo is there to take its size from")
        with torch.device("meta"):
            return nn.Linear(layouts[0].size, config.latent)


class GreedyCodec(OwnCodec):
    """Knows its activations, which fit nowhere."""

    @classmethod
    def activation_bytes(cls, config, module, share: Share):
        return share.micro * 2**40

    @classmethod
    def how_to_save_activations(cls, config):
        return ["--codec.thrifty"]


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setitem(CODECS, "own", "tests.codecs.test_contracts:OwnCodec")
    return GeneratorConfig("small", codec=OwnConfig(), density=GaussianConfig())


def test_a_trained_codec_of_ones_own_is_planned(make_zoo, tmp_path, own):
    zoo = make_zoo()
    said = plan(own, tmp_path, name="g", ranks=2, gpus=Gpus(4, 80))
    num = 7 * zoo.layout.size + 7
    assert "own codes of 7 numbers, density gaussian" in said
    assert f"own: {num:,} parameters; engine plain, ranks: 2, batch 8 as 2 x 1 x 4" in said
    assert f"memory per GPU: weights {4 * num / 2**20:.2f}" in said and "activations" not in said
    assert "fits a GPU of 80 GiB" in said
    with pytest.raises(ConfigError, match=r"training.batch_size = 8 cannot be shared by 3 ranks"):
        plan(own, tmp_path, name="g", ranks=3)


def test_a_trained_codec_without_its_zoo_says_what_is_missing(tmp_path, own):
    said = plan(own, tmp_path, name="g")
    assert "own: parameters and memory are not known yet: no zoo is there" in said


def test_its_hints_are_given_where_it_does_not_fit(make_zoo, tmp_path, own, monkeypatch):
    monkeypatch.setitem(CODECS, "own", "tests.codecs.test_contracts:GreedyCodec")
    make_zoo()
    said = plan(own, tmp_path, name="g", gpus=Gpus(4, 80))
    assert "does NOT fit a GPU of 80 GiB" in said
    assert "try --codec.thrifty, a larger --codec.training.accumulate" in said


def test_its_engine_is_chosen_like_any_other(tmp_path, own):
    parsed = Parsed(own, RankedLaunch(tmp_path / "own.yaml", engine="ddp"), origins={})
    after = with_engine(parsed).config
    assert parts_that_train(own)["codec"].engine == "plain"
    assert parts_that_train(after)["codec"].engine == "ddp"
