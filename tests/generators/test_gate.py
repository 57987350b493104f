"""The gate before a density: what it measures against a loop over networks, and whom it refuses."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf import preemption
from dwf.backbones.autoencoder_config import PerceptronAutoencoderConfig
from dwf.codecs.codec import Codec
from dwf.codecs.config import VaeConfig
from dwf.datasets.config import DataConfig
from dwf.densities.config import GaussianConfig
from dwf.errors import ConfigError, Preempted, RunConflict
from dwf.generators.batchnorm import recalibration
from dwf.generators.config import GateConfig, GeneratorConfig
from dwf.generators.stage import fit_generator, plan
from dwf.settings import load
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.zoo.store import write_zoo

LOOP = LoopConfig(
    steps=3,
    batch_size=4,
    validate_every=3,
    compute=LoopComputeConfig(device="cpu", threads=1),
)
VAE = VaeConfig(backbone=PerceptronAutoencoderConfig(16, 5), training=LOOP, kl=1e-6)
GATE = GateConfig(drop=0.0, same_answers=1.0, networks=3, overfit_steps=4)
CONFIG = GeneratorConfig("small", codec=VAE, density=GaussianConfig("diagonal"), gate=GATE)
AS_PUBLISHED = (
    "pdiff_resnet18_cifar10",
    "pdiff_convnet_cifar10",
    "pdiff_v1_resnet18_cifar10",
    "pdiff_v1_small_resnet18_cifar10",
    "pdiff_vae_resnet18_cifar10",
)


def anyway(config: GeneratorConfig = CONFIG) -> GeneratorConfig:
    return replace(config, gate=replace(config.gate, anyway=True))


def refused(tmp_path, config: GeneratorConfig = CONFIG, name: str = "g") -> str:
    with pytest.raises(ConfigError) as caught:
        fit_generator(config, tmp_path, name=name)
    return str(caught.value)


def test_it_finds_what_a_loop_over_networks_finds(convolutional, tmp_path):
    """Of networks with BatchNorm, whose statistics are re-estimated before and after."""
    config = anyway(replace(CONFIG, gate=replace(GATE, networks=16)))
    fit_generator(config, tmp_path, name="g")
    done = json.loads((tmp_path / "runs" / "g" / "done.json").read_text())
    codec, zoo = Codec.load(tmp_path / "runs" / "g" / "codec"), convolutional
    data, network, layout = zoo.load_data(), zoo.build_network(), zoo.layout
    weights = torch.from_numpy(zoo.read(zoo.rows("val")))
    decoded = codec.decode(codec.encode(weights, layout), layout)
    estimate = recalibration(2000, layout, network=network, data=data)
    images, labels = data.val.batch(torch.arange(len(data.val)))
    answers = []
    for one in (*estimate(weights), *estimate(decoded)):
        network.load_state_dict(layout.unflatten(one), strict=False)
        with torch.no_grad():
            answers.append(network.eval()(data.prepare(images)).argmax(1))
    before, after = torch.stack(answers).chunk(2)
    found = done["gate"]["validation"]
    assert found["networks"] == len(weights) == 2
    assert found["original"] == pytest.approx((before == labels).double().mean().item())
    assert found["reconstructed"] == pytest.approx((after == labels).double().mean().item())
    assert found["drop"] == pytest.approx(found["original"] - found["reconstructed"])
    assert found["same_answers"] == pytest.approx((before == after).double().mean().item())
    assert found["relative"] == done["codec"]["round_trip"]["relative"]


def test_below_it_no_density_is_fitted_and_anyway_goes_on(make_zoo, tmp_path, caplog):
    make_zoo(20)
    said = refused(tmp_path)
    assert "gate: 3 validation networks lose" in said and "at most 0 by gate.drop" in said
    assert "at least 100 by gate.same_answers" in said and "alone in 4 steps, one network" in said
    assert "so no density is fitted: it does not even learn one network, so give it more" in said
    assert f"give another --name; or go on with --gate.anyway ({tmp_path / 'runs' / 'g'})" in said
    run = tmp_path / "runs" / "g"
    assert not (run / "density").exists() and not (run / "gate").exists()
    before = (run / "gate.json").read_bytes(), (run / "codec" / "codec.json").stat().st_mtime_ns
    with caplog.at_level(logging.WARNING, "dwf"):
        fit_generator(anyway(), tmp_path, name="g")
    assert "the density is fitted anyway" in caplog.text
    after = (run / "gate.json").read_bytes(), (run / "codec" / "codec.json").stat().st_mtime_ns
    assert after == before
    found = json.loads((run / "done.json").read_text())["gate"]
    assert found == json.loads(before[0]) | {"passed": False}
    with pytest.raises(RunConflict, match=r"gate.networks = 3, this one has 4"):
        fit_generator(replace(CONFIG, gate=replace(GATE, networks=4)), tmp_path, name="g")


def test_what_was_measured_is_not_measured_again(make_zoo, tmp_path):
    """Planted numbers decide when a refused run goes on."""
    make_zoo(20)
    refused(tmp_path)
    file = tmp_path / "runs" / "g" / "gate.json"
    planted = json.loads(file.read_text())
    planted["one_network"] |= {"drop": 0.0, "same_answers": 1.0}
    planted["validation"]["drop"] = 0.25
    file.write_text(json.dumps(planted))
    said = refused(tmp_path)
    assert "lose 25.00 points" in said and "it can learn one network, so train the codec" in said
    planted["validation"] |= {"drop": -0.01, "same_answers": 1.0}
    file.write_text(json.dumps(planted))
    fit_generator(CONFIG, tmp_path, name="g")
    done = json.loads((tmp_path / "runs" / "g" / "done.json").read_text())
    assert done["gate"] == planted | {"passed": True}


def test_limits_decide_each_by_itself(make_zoo, tmp_path):
    make_zoo(20)
    refused(tmp_path)
    for limits in ({"drop": 1.0}, {"drop": 1.0, "same_answers": 0.999}):
        refused(tmp_path, replace(CONFIG, gate=replace(GATE, **limits)))
    easy = replace(CONFIG, gate=replace(GATE, drop=1.0, same_answers=0.0))
    fit_generator(easy, tmp_path, name="g")


def test_one_network_alone_is_learnt_whatever_the_training_of_the_codec(make_zoo, tmp_path):
    """The codec itself is all but untrained."""
    make_zoo(20)
    slow = replace(LOOP, learning_rate=1e-9, ema=0.99, warm_up=2)
    config = replace(
        CONFIG,
        codec=replace(VAE, training=slow, backbone=PerceptronAutoencoderConfig(64, 8)),
        gate=replace(GATE, overfit_steps=150),
    )
    refused(tmp_path, config)
    found = json.loads((tmp_path / "runs" / "g" / "gate.json").read_text())
    assert found["one_network"]["relative"] < 0.1 and found["one_network"]["networks"] == 1
    assert found["validation"]["relative"] > 0.9


def test_an_interrupted_test_goes_on_to_the_same_bytes(make_zoo, tmp_path, monkeypatch):
    make_zoo(20)
    refused(tmp_path, name="whole")
    asked = iter([False] * 5 + [True] * 3)  # three steps of the codec, two of one network
    with monkeypatch.context() as patched:
        for name in ("is_asked", "agreed"):
            patched.setattr(preemption, name, lambda: next(asked, False))
        with pytest.raises(Preempted):
            fit_generator(CONFIG, tmp_path, name="cut")
    cut = tmp_path / "runs" / "cut"
    assert (cut / "gate" / "checkpoints").exists() and not (cut / "gate.json").exists()
    refused(tmp_path, name="cut")
    whole = tmp_path / "runs" / "whole" / "gate.json"
    assert (cut / "gate.json").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("lacks", ["networks", "images"])
def test_what_nothing_can_be_scored_by_is_let_through(make_zoo, tmp_path, caplog, lacks):
    zoo = make_zoo(20)
    columns = {name: values for name, values in zoo.columns.items() if name != "checksum"}
    facts = zoo.facts
    if lacks == "networks":
        columns["split"] = np.full(20, "train")
    else:
        facts = replace(facts, data=DataConfig("digits", validation=0.0))
    write_zoo(tmp_path / "zoos" / "bare", facts, num_rows=20, blocks=[(columns, zoo.read())])
    with caplog.at_level(logging.WARNING, "dwf"):
        fit_generator(replace(CONFIG, zoo="bare"), tmp_path, name="g")
    why = json.loads((tmp_path / "runs" / "g" / "done.json").read_text())["gate"]["not_tested"]
    assert lacks in why and f"gate: the codec is not tested: {why}" in caplog.text


def test_it_is_planned_and_off_where_nothing_learns_or_as_published(make_zoo, tmp_path):
    make_zoo(20)
    said = plan(CONFIG, tmp_path, name="g")
    assert "gate: validation networks lose at most 0 points of accuracy by the codec and" in said
    assert "no density is fitted to another" in said
    assert "the density is fitted in any case" in plan(anyway(), tmp_path, name="g")
    for config in (replace(CONFIG, gate=None), GeneratorConfig("small")):
        assert "gate" not in plan(config, tmp_path, name="g")
    fit_generator(replace(CONFIG, gate=None), tmp_path, name="g")
    assert not (tmp_path / "runs" / "g" / "gate.json").exists()
    for name in AS_PUBLISHED:
        assert load(GeneratorConfig, f"configs/generator/{name}.yaml").gate is None
