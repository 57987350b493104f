"""Networks that codes stand for, asked: by hand, and in a fit that is stopped."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from dwf.backbones.config import TransformerConfig
from dwf.codecs.config import FlatConfig, FunctionsConfig, NeuronsConfig, SaneConfig
from dwf.codecs.flat import FlatCodec
from dwf.codecs.neurons.codec import NeuronsCodec
from dwf.densities.base_config import AnswersConfig
from dwf.errors import ConfigError
from dwf.generators import answering
from dwf.generators.answering import Answering
from dwf.generators.config import GeneratorConfig
from dwf.generators.generator import Generator
from dwf.generators.stage import fit_generator, plan
from dwf.run_folder import RunFolder
from dwf.settings import build, to_dict
from tests.densities.test_flow import fail_at


def coded(zoo, tmp_path, standardise="none"):
    """The flat codec, fitted to the zoo's training networks, and their codes."""
    config = FlatConfig(standardise=standardise)
    rows = zoo.rows("train", "last")
    codec = FlatCodec(config).fit([(zoo, rows)], [], run=RunFolder(tmp_path / "run", config))
    return codec, codec.encode(torch.from_numpy(zoo.read(rows)), zoo.layout)


def test_logits_are_those_of_the_networks(make_zoo, tmp_path):
    zoo = make_zoo(widths=(64, 6, 10))
    codec, codes = coded(zoo, tmp_path, "per_weight")
    asked, places = Answering(codec, zoo), torch.tensor([0.0, 0.5, 0.999])
    asked.unit = 4.0
    numbers = codes.flatten()[:2].requires_grad_()
    found = asked(numbers, places)
    data = zoo.load_data()
    rows = [0, len(data.train) // 2, int(0.999 * len(data.train))]
    x = data.prepare(data.train.batch(torch.tensor(rows))[0]).flatten(1).double()
    first, bias, second, last = zoo.layout.unflatten(
        torch.from_numpy(zoo.read(zoo.rows("train", "last"))[:2]).double()
    ).values()
    hidden = (x @ first.mT + bias[:, None]).relu()
    wanted = (hidden @ second.mT + last[:, None]) / 4
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    assert torch.autograd.grad(found.sum(), numbers)[0].abs().sum() > 0


def test_the_unit_is_the_change_by_errors_of_deviation_1(make_zoo, tmp_path, monkeypatch):
    """A logit W x + b changes by sum_i e_i s_i x_i + e s: its variance is known."""
    monkeypatch.setattr(answering, "_IMAGES", 2000)
    zoo = make_zoo(count=400, widths=(64, 10))
    codec, codes = coded(zoo, tmp_path)
    data = zoo.load_data()
    x = data.prepare(data.train.batch(torch.arange(len(data.train)))[0]).flatten(1).double()
    deviation = codes.flatten().double().std(0, correction=0)
    weight, bias = zoo.layout.unflatten(deviation[None]).values()
    wanted = (x.square() @ weight[0].square().T + bias.square()).mean().sqrt().item()
    found = Answering(codec, zoo).measure(codes, seed=0)
    assert found == pytest.approx(wanted, rel=0.02)
    assert Answering(codec, zoo).measure(codes, seed=0) == found


def asking(flow_on_pca, codec=None):
    density = dataclasses.replace(
        flow_on_pca.density, answers=AnswersConfig(share=0.5, after=0.2, images=16)
    )
    return dataclasses.replace(flow_on_pca, codec=codec or FlatConfig(), density=density)


def test_a_stopped_fit_goes_on_to_the_same_bits(make_zoo, tmp_path, flow_on_pca, monkeypatch):
    make_zoo(40)
    config = asking(flow_on_pca)
    assert "50% of the loss asks the networks at the end of paths, from time 0.2 on" in plan(
        config, tmp_path, name="whole"
    )
    fit_generator(config, tmp_path, name="whole")
    with monkeypatch.context() as patch:
        patch.setattr("dwf.densities.paths.mse_loss", fail_at(17))
        with pytest.raises(KeyboardInterrupt):
            fit_generator(config, tmp_path, name="cut")
    told = tmp_path / "runs" / "cut" / "answers.json"
    unit = json.loads(told.read_text())["unit"]
    assert unit > 0
    fit_generator(config, tmp_path, name="cut")
    assert json.loads(told.read_text())["unit"] == unit
    one, two = (Generator.load(tmp_path / "runs" / name) for name in ("whole", "cut"))
    np.testing.assert_array_equal(one.sample(4, seed=0), two.sample(4, seed=0))


def test_units_by_what_they_compute_are_asked(make_zoo, tmp_path, flow_on_pca):
    """The codec whose decoding solves for weights, layer by layer."""
    make_zoo(60, widths=(64, 4, 5, 10))
    config = asking(flow_on_pca, FunctionsConfig(inputs=50, functions=8, energy=0.9))
    backbone = TransformerConfig(width=16, heads=2, depth=1)
    density = dataclasses.replace(config.density, backbone=backbone, standardise="none")
    config = dataclasses.replace(config, density=density)
    generator = fit_generator(config, tmp_path, name="functions")
    assert generator.sample(3, seed=0).isfinite().all()


def test_what_cannot_answer_is_refused(convolutional, make_zoo, tmp_path, flow_on_pca):
    codec, _ = coded(convolutional, tmp_path)
    with pytest.raises(ConfigError, match=r"density\.answers.*BatchNorm's statistics"):
        Answering(codec, convolutional)
    zoos = [make_zoo(6), make_zoo(6, widths=(64, 4, 10), name="narrow")]
    mixed = NeuronsCodec(NeuronsConfig()).fit(
        [(zoo, zoo.rows("train", "last")) for zoo in zoos],
        [],
        run=RunFolder(tmp_path / "mixed", NeuronsConfig()),
    )
    with pytest.raises(ConfigError, match=r"density\.answers asks .* the codes are of 2: learn"):
        Answering(mixed, zoos[0])
    told = to_dict(asking(flow_on_pca))
    for changes, words in (
        ({"codec": to_dict(SaneConfig())}, r"density\.answers learns by the derivative"),
        ({"more_zoos": ["other"]}, r"density\.answers asks networks of one architecture"),
    ):
        with pytest.raises(ConfigError, match=words):
            build(GeneratorConfig, told | changes, source="generator.yaml")
    zoo = make_zoo(40)
    codec, codes = coded(zoo, tmp_path / "flat")
    still = dataclasses.replace(codes, values=codes.values[:1].expand(20, -1))
    with pytest.raises(ConfigError, match=r"nothing that the codes cover changes"):
        Answering(codec, zoo).measure(still, seed=0)
