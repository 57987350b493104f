"""Networks of a user's own module: built and run like ours, or refused with the reason."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dwf.errors import ConfigError
from dwf.networks.batchnorm import recalibrate
from dwf.networks.config import NetworkConfig, PythonConfig
from dwf.networks.functional import batchnorm_buffers, build_network, run_networks
from dwf.networks.initialisation import initialise
from dwf.settings import build, to_dict
from dwf.trust import trust_code
from dwf.zoo.layout import Layout
from tests.networks.test_functional import image_data, state_of

ROOT = Path(__file__).parent.parent.parent
SOURCE = """
from torch import nn

def make(width, classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.ReLU(), nn.Linear(width, classes))

def normed(norm, **settings):
    return nn.Sequential(nn.Conv2d(3, 4, 1), getattr(nn, norm)(4, **settings), nn.Flatten())

class Holder:
    make = staticmethod(make)

def nothing():
    return 3

def broken(width):
    raise RuntimeError("no such width")

number = 4
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder, from which the command is given."""
    (tmp_path / "own_networks.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)
    return tmp_path


def settings(target: str, **arguments) -> PythonConfig:
    trust_code(target)
    data = {"kind": "python", "target": target, "arguments": arguments}
    return build(NetworkConfig, data, source="zoo.yaml")


@pytest.mark.parametrize("target", ["own_networks:make", "own_networks:Holder.make"])
def test_a_network_of_the_users_own_runs_and_begins_anew(folder, target):
    config = settings(target, width=5)
    assert build(NetworkConfig, to_dict(config), source="zoo.json") == config
    network = build_network(config)
    layout = Layout.of(network)
    assert layout.size == 12 * 5 + 5 + 5 * 10 + 10
    weights_ND = torch.randn(3, layout.size)
    logits = run_networks(network, layout.unflatten(weights_ND), inputs=torch.randn(4, 3, 2, 2))
    assert logits.shape == (3, 4, 10)
    initialise(network, config, kind="default", seed=2)
    torch.manual_seed(2)
    first = torch.nn.Linear(12, 5)
    assert torch.equal(network[1].weight, first.weight)


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        ("own_network:make", {}, "cannot import own_network: ModuleNotFoundError.*in the folder"),
        ("own_broken:make", {}, "cannot import own_broken: .*nowhere_to_be_found"),
        ("own_networks:mak", {"width": 3}, "has no mak; did you mean 'make'"),
        ("own_networks:make", {}, r"make\(\) failed with TypeError: .*'width'"),
        ("own_networks:broken", {"width": 3}, r"broken\(width=3\) failed.*no such width"),
        ("own_networks:nothing", {}, r"nothing\(\) returned int, expected a torch.nn.Module"),
        ("own_networks:number", {}, "number is int, expected a function"),
    ],
)
def test_a_target_that_gives_no_network_is_refused(folder, target, arguments, message):
    with pytest.raises(ConfigError, match=message):
        build_network(settings(target, **arguments))


def test_batchnorm_without_running_statistics_is_refused(folder):
    """Such a network answers otherwise where other images are in the batch."""
    alone = {"norm": "BatchNorm2d", "track_running_stats": False}
    with pytest.raises(ConfigError, match=r"has 1 BatchNorm2d without running.*track_running_stat"):
        build_network(settings("own_networks:normed", **alone))
    build_network(settings("own_networks:normed", norm="InstanceNorm2d"))  # each image by itself


def test_instance_norm_that_tracks_statistics_has_them_re_estimated(folder):
    tracks = {"norm": "InstanceNorm2d", "track_running_stats": True}
    network, data = build_network(settings("own_networks:normed", **tracks)), image_data(2)
    assert batchnorm_buffers(network) == ("1.running_mean", "1.running_var")
    new = recalibrate(network, state_of(network, 1), data=data, num_images=30)
    images = data.prepare(data.train.images[data.train.index])
    weight, bias = (state_of(network, 1)[f"0.{leaf}"][0] for leaf in ("weight", "bias"))
    maps_BCHW = torch.nn.functional.conv2d(images, weight, bias)
    expected_C = maps_BCHW.var((2, 3)).mean(0)
    torch.testing.assert_close(new["1.running_mean"][0], maps_BCHW.mean((0, 2, 3)))
    torch.testing.assert_close(new["1.running_var"][0], expected_C)


@pytest.mark.parametrize(
    "target", ["torch.nn.Linear", "torch.nn:", ":Linear", "a:b c:d", "a:b;touch ran", "a:b\n"]
)
def test_a_target_that_is_no_name_of_a_factory_is_refused(target):
    """Neither is what would be several once it is given to a shell, or to a worker process."""
    with pytest.raises(ConfigError, match=r"expected package\.module:factory"):
        settings(target)


def test_other_processes_started_in_the_folder_find_it(folder):
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from dwf.networks.config import PythonConfig\n"
        "from dwf.networks.functional import build_network\n"
        "print(len(build_network(PythonConfig('own_networks:make', {'width': 5}))))\n"
    )
    script = folder / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(program)
    trust_code("own_networks:make")  # as a launcher does, which hands on what was named
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=folder)
    assert done.stdout == "4\n", done.stderr
