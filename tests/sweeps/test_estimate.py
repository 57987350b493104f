"""What trials would cost: against the operations that torch counts."""

from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dwf.backbones.config import build_backbone
from dwf.codecs.config import CODECS
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.networks.functional import build_network
from dwf.settings import build, find
from dwf.sweeps.estimate import (
    FLOW_SPEED,
    fit_seconds,
    in_hours,
    multiplications,
    sample_seconds,
    training_networks,
    zoo_seconds,
)
from dwf.sweeps.space import read_bases
from dwf.sweeps.trials import describe_plan, list_trials
from dwf.zoo.config import ZooConfig
from dwf.zoo.layout import Layout
from dwf.zoo.store import split_networks
from tests.sweeps.conftest import STAGES, WIDTH

FLOWS = {
    "transformer": ("neurons", {"width": 64, "heads": 2, "depth": 3}),
    "neural_graph": ("neurons", {"width": 16, "depth": 3}),
    "residual_mlp": ("flat", {"width": 128, "depth": 2}),
    "mlp": ("pca", {"hidden": 256}),
}


def zoo_of(**changed) -> ZooConfig:
    return build(ZooConfig, STAGES["zoo"] | {"count": 320} | changed, source="test")


def generator_of(backbone: str, **training) -> GeneratorConfig:
    codec, settings = FLOWS[backbone]
    density = {"kind": "flow", "backbone": {"kind": backbone} | settings, "training": training}
    return build(
        GeneratorConfig, {"zoo": "z", "codec": {"kind": codec}, "density": density}, source="test"
    )


@pytest.mark.parametrize("backbone", FLOWS)
def test_arithmetic_is_nearly_what_torch_counts(backbone):
    zoo, generator = zoo_of(), generator_of(backbone)
    layout = Layout.of(build_network(zoo.network))
    kind = find(CODECS, generator.codec.kind)
    shape = kind.planned_shape(generator.codec, [layout], num_train=training_networks(zoo))
    module = build_backbone(generator.density.backbone, shape).double().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(16, shape.size).double(), torch.zeros(16).double())
    counted = counter.get_total_flops() / 2 / 16  # in float64: oneDNN is not counted
    assert multiplications(zoo, generator) == pytest.approx(counted, rel=0.15)


def test_what_is_learnt_from_is_what_the_split_leaves():
    for val, test in ((0.1, 0.1), (0.15, 0.0), (0.33, 0.125)):
        zoo = zoo_of(split={"val": val, "test": test}, count=61)
        left = (split_networks(61, val, test=test, seed=0) == "train").sum()
        assert training_networks(zoo) == left


def test_time_follows_the_work():
    zoo = zoo_of()
    assert zoo_seconds(zoo_of(count=640)) == pytest.approx(2 * zoo_seconds(zoo))
    short, long = (generator_of("residual_mlp", steps=s, batch_size=256) for s in (1000, 3000))
    assert fit_seconds(zoo, long) == pytest.approx(3 * fit_seconds(zoo, short))
    assert fit_seconds(zoo, generator_of("residual_mlp", steps=1000, batch_size=1)) == 1
    drawn = [SampleConfig("g", count=n, solver="heun2", steps=10) for n in (10, 20)]
    one, two = (sample_seconds(zoo, short, sample=each) for each in drawn)
    assert two == pytest.approx(2 * one)
    assert one == pytest.approx(10 * 20 * 2 * multiplications(zoo, short) / FLOW_SPEED)


def test_what_is_not_known_is_said():
    zoo = zoo_of(network={"kind": "python", "target": "package.module:factory"})
    assert zoo_seconds(zoo) is None and fit_seconds(zoo, generator_of("residual_mlp")) is None
    assert in_hours("zoos", [None, 7200.0]) == "zoos 2 (1 of 2 not known)"
    gaussian = build(GeneratorConfig, {"zoo": "z", "density": {"kind": "gaussian"}}, source="test")
    assert fit_seconds(zoo, gaussian) == 0


def test_time_follows_the_work_of_any_network_whose_settings_tell_it():
    cnn, mlp = zoo_of(network={"kind": "cnn", "channels": [4], "input": [1, 8, 8]}), zoo_of()
    work = 6 * 6 * 4 * 9 + 6 * 6 * 4 * 10  # a convolution, a linear layer
    weights = sum(a * b for a, b in pairwise(mlp.network.widths))
    assert zoo_seconds(cnn) / zoo_seconds(mlp) == pytest.approx(work / weights)
    other = zoo_of(network={"kind": "cnn", "channels": [4], "input": [1, 9, 9]})
    assert zoo_seconds(other) is None, "it does not take images of the digits"


def test_a_plan_counts_what_is_shared_once(make, tmp_path):
    space = {
        "zoo.count": {"grid": [100, 200]},
        WIDTH: {"grid": [8, 16]},
        "sample.seed": {"grid": [0, 1]},
    }
    config = make(space)
    said = describe_plan(config, read_bases(config), folder=tmp_path)
    assert "8 trials" in said and "2 x zoo, 2 x aligned" in said
    assert "zoos of 100, 200 networks (70, 140 to learn from)" in said
    assert "240 training steps; 80 samples" in said and "core-hours: zoos " in said


def test_a_batch_larger_than_a_zoo_is_refused_before_anything_runs(make):
    batch = {"generator.density.training.batch_size": {"grid": [16, 64]}}
    said = r"trial 1: a zoo of 24 networks leaves 16 rows .*batch_size = 64.*grid: \[16\]"
    config = make(batch)
    with pytest.raises(ConfigError, match=said):
        list_trials(config, read_bases(config))
    fits = make(batch | {"zoo.count": {"grid": [100]}})
    assert len(list_trials(fits, read_bases(fits))) == 2
    epochs = {"zoo.keep_epochs": {"grid": [[1, 2, 3, 4]]}, "generator.epochs": {"grid": ["all"]}}
    rows = make(batch | epochs)
    assert len(list_trials(rows, read_bases(rows))) == 2


def test_more_networks_than_a_zoo_leaves_are_refused_before_anything_runs(make):
    networks = {"generator.networks": {"grid": [16, 17]}}
    said = r"trial 1: generator.networks = 17, and a zoo of 24 networks leaves 16 to learn from"
    config = make(networks)
    with pytest.raises(ConfigError, match=said):
        list_trials(config, read_bases(config))
    fits = make(networks | {"zoo.count": {"grid": [100]}})
    assert len(list_trials(fits, read_bases(fits))) == 2
    batch = make({"generator.networks": {"grid": [7]}})
    with pytest.raises(ConfigError, match=r"leaves 7 rows to learn from, fewer than .*size = 8"):
        list_trials(batch, read_bases(batch))


def test_zoos_that_a_sweep_does_not_make_are_refused(make):
    config = make({"generator.codec_zoos": {"grid": [["other"]]}})
    with pytest.raises(ConfigError, match=r"generator.codec_zoos = \['other'\]: a sweep makes one"):
        list_trials(config, read_bases(config))


@pytest.mark.parametrize("codec", [{"kind": "flat"}, {"kind": "neurons"}])
def test_parts_that_do_not_go_together_have_no_known_cost(codec):
    """Vectors for a transformer, and neurons of networks without hidden units."""
    zoo = zoo_of(network={"kind": "mlp", "widths": [64, 10]})
    density = {"kind": "flow", "backbone": {"kind": "transformer"}}
    generator = build(
        GeneratorConfig, {"zoo": "z", "codec": codec, "density": density}, source="test"
    )
    assert multiplications(zoo, generator) is None


@pytest.mark.parametrize("codec", ["sane", "tokens"])
def test_codes_that_are_not_known_without_a_zoo_have_no_known_cost(codec):
    data = {"zoo": "z", "codec": {"kind": codec}, "density": {"kind": "flow"}}
    assert multiplications(zoo_of(), build(GeneratorConfig, data, source="test")) is None
