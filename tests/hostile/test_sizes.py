"""Settings that describe more than a machine holds are told before any memory is taken.

The expected number of bytes is counted by hand, from the widths alone; that nothing was taken is
the kernel's word, under a limit of one process.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from dwf import room
from dwf.backbones.autoencoder_config import PerceptronAutoencoderConfig
from dwf.backbones.config import ResidualMLPConfig, TokenAutoencoderConfig
from dwf.cluster import backend
from dwf.cluster.config import ClusterLaunch
from dwf.codecs.config import FlatConfig as FlatCodec
from dwf.codecs.config import SaneConfig, VaeConfig
from dwf.commands import zoo as zoo_command
from dwf.datasets.config import DataConfig
from dwf.densities.config import FlowConfig, KdeConfig
from dwf.errors import NotAZoo, TooLarge
from dwf.generators.config import GeneratorConfig
from dwf.generators.stage import fit_generator
from dwf.generators.stage import plan as plan_generator
from dwf.networks.config import CifarResNetConfig, CNNConfig, MLPConfig
from dwf.networks.functional import build_network
from dwf.predictors.config import GraphConfig
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.predictors.reading_config import MessagesConfig
from dwf.predictors.stage import plan as plan_predictors
from dwf.room import within_memory
from dwf.zoo.config import ZooConfig
from dwf.zoo.facts import Facts
from dwf.zoo.stage import plan as plan_zoo
from dwf.zoo.stage import train_zoo
from tests.hostile.test_contents import memory

WIDE = 900_000_000
OTHERS = (
    CNNConfig(channels=(WIDE, 16), input=(1, 28, 28)),
    CifarResNetConfig(width=WIDE),  # more bytes than 64 bits count
)


def test_the_bytes_of_a_wide_mlp_are_those_of_its_widths():
    num = 64 * WIDE + WIDE + WIDE * 10 + 10
    told = f"network[.]widths = 64, {WIDE}, 10: .* {4 * num:,} bytes .* this machine has"
    with memory(), pytest.raises(TooLarge, match=told):
        build_network(MLPConfig((64, WIDE, 10)))


@pytest.mark.parametrize("config", OTHERS, ids=lambda one: one.kind)
def test_other_architectures_are_told_too(config):
    with memory(), pytest.raises(TooLarge, match=r"network.*the weights alone take"):
        build_network(config)


def test_a_network_that_fits_is_built_as_ever(monkeypatch):
    config = MLPConfig((64, 2000, 10))
    torch.manual_seed(3)
    built = build_network(config)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    plain = nn.Linear(64, 2000)
    assert torch.equal(built.layers[0].weight, plain.weight)
    nn.Linear(2000, 10)
    assert torch.equal(drawn, torch.rand(1))  # the trial of shapes drew nothing
    num = 64 * 2000 + 2000 + 2000 * 10 + 10
    for size, fits in ((4 * num, True), (4 * num - 1, False)):
        monkeypatch.setattr(room, "machine_bytes", lambda size=size: size)
        if fits:
            build_network(config)
        else:
            with pytest.raises(TooLarge):
                build_network(config)


def test_a_zoo_is_refused_by_its_plan_and_before_a_folder_is_made(tmp_path):
    config = ZooConfig(MLPConfig((64, WIDE, 10)), DataConfig("digits"), 4)
    for make in (plan_zoo, train_zoo):
        with memory(), pytest.raises(TooLarge, match=r"network.widths"):
            make(config, tmp_path, name="wide")
    assert not list(tmp_path.iterdir())


def test_a_dry_run_warns_of_what_this_machine_does_not_hold(tmp_path, capsys, caplog):
    """Another may: on one whose memory is larger the same command trains."""
    wide = ["--network.widths", "64", str(WIDE), "10", "--root", str(tmp_path)]
    with memory():
        zoo_command.main(["digits_4096", *wide, "--dry-run"])
    assert f"network.widths = 64, {WIDE}, 10: the weights alone take" in caplog.text
    assert "where this is done there must be more" in caplog.text
    told = capsys.readouterr().out
    assert f"{64 * WIDE + WIDE + WIDE * 10 + 10:,} weights" in told
    assert "this machine's memory does not hold such a network" in told
    with memory(), pytest.raises(TooLarge, match=r"give less, or another machine"):
        zoo_command.main(["digits_4096", *wide])


def test_what_is_sent_to_nodes_is_warned_of_where_it_is_planned(make_zoo, tmp_path, caplog):
    make_zoo(120, widths=(64, 4, 10))
    density = FlowConfig(backbone=ResidualMLPConfig(width=1_000_000))
    config = GeneratorConfig("small", gate=None, codec=FlatCodec(), density=density)
    with memory(), room.planned_only():
        planned = plan_generator(config, tmp_path, name="wide")
    assert "flat" in planned and "density.backbone.width = 1000000" in caplog.text
    launch = ClusterLaunch(Path("x"), local=True), ClusterLaunch(Path("x"), backend="ray")
    assert [backend.is_elsewhere(one, tmp_path) for one in launch] == [False, True]


def test_what_no_machine_holds_is_refused_by_a_plan_too():
    with room.planned_only(), pytest.raises(TooLarge, match=r"more than"):
        build_network(OTHERS[1])


def test_a_zoo_of_a_stranger_that_claims_such_a_network_is_told(make_zoo):
    zoo = make_zoo(widths=(64, 4, 10))
    file = zoo.path / "zoo.json"
    told = json.loads(file.read_text())
    told["network"]["widths"] = [64, WIDE, 10]
    file.write_text(json.dumps(told))
    with memory(), pytest.raises(TooLarge, match=r"network.widths"):
        Facts.read(zoo.path).build_network()


def test_a_zoo_that_claims_shards_without_number_is_told(make_zoo):
    zoo = make_zoo(widths=(64, 4, 10))
    file = zoo.path / "zoo.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_shards": 10**9}))
    with memory(), pytest.raises(NotAZoo, match="num_shards"):
        Facts.read(zoo.path)


GENERATORS = {
    "density.backbone.width": {
        "codec": FlatCodec(),
        "density": FlowConfig(backbone=ResidualMLPConfig(width=WIDE)),
    },
    "codec.backbone.width": {
        "codec": SaneConfig(backbone=TokenAutoencoderConfig(width=WIDE)),
        "density": KdeConfig(),
    },
    "codec.backbone.hidden": {
        "codec": VaeConfig(backbone=PerceptronAutoencoderConfig(hidden=WIDE))
    },
}


@pytest.mark.parametrize("key", GENERATORS)
def test_a_generator_is_refused_by_its_plan_and_by_its_fit(key, make_zoo, tmp_path):
    make_zoo(120, widths=(64, 4, 10))
    config = GeneratorConfig("small", gate=None, **GENERATORS[key])
    for make in (plan_generator, fit_generator):
        with memory(), pytest.raises(TooLarge, match=f"{key} = {WIDE}: the weights alone take"):
            make(config, tmp_path, name="wide")


def test_predictors_are_refused_by_their_plan(make_zoo, tmp_path):
    make_zoo(40, widths=(64, 4, 10), test_accuracy=torch.linspace(0, 1, 40).numpy())
    rows = {"graph": GraphConfig(messages=MessagesConfig(width=WIDE))}
    config = ExperimentConfig(("small",), rows)
    with memory(), pytest.raises(TooLarge, match=f"graph.messages.width = {WIDE}"):
        plan_predictors(config, tmp_path, name="wide")


def test_other_errors_of_a_module_pass_as_they_are():
    def fail():
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        within_memory(fail, None, key="x")
