"""Files of one network each: read by their own libraries, held to the rows that were written."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torchvision.models.densenet import DenseNet
from torchvision.models.vision_transformer import VisionTransformer

import dwf
from dwf.networks.config import (
    CNNConfig,
    DenseNetConfig,
    MobileNetV2Config,
    ResNetConfig,
    ViTConfig,
)
from dwf.networks.functional import run_networks

READERS = {
    "safetensors": load_file,
    "state_dict": lambda file: torch.load(file, weights_only=True),
    "npz": lambda file: {k: torch.from_numpy(v) for k, v in np.load(file).items()},
}
ENDINGS = {"safetensors": ".safetensors", "state_dict": ".pt", "npz": ".npz"}


def logits_of(zoo, row: int, inputs: torch.Tensor) -> torch.Tensor:
    """By the way on which zoos are scored: the answer that exports are held against."""
    state = zoo.layout.unflatten(torch.from_numpy(zoo.read(np.array([row]))))
    with torch.no_grad():
        return run_networks(zoo.build_network(), state, inputs=inputs)[0]


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("kind", READERS)
def test_each_file_holds_the_row_by_the_networks_own_names(kind, zoo, export):
    folder = export(zoo, kind, rows=(3, 7))
    inputs = torch.randn(5, 64)
    for row in (3, 7):
        found = READERS[kind](folder / f"row-{row:07d}{ENDINGS[kind]}")
        state = {name: found.pop(name) for name in zoo.build_network().state_dict()}
        assert not found, "a tensor that the network has not"
        weights_D = zoo.read(np.array([row]))[0]
        flat = torch.cat([tensor.flatten() for tensor in state.values()])
        assert np.array_equal(flat.numpy(), weights_D)
        plain = torch.nn.Sequential(
            torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)
        )
        plain.load_state_dict(dict(zip(plain.state_dict(), state.values(), strict=True)))
        assert close(plain(inputs), logits_of(zoo, row, inputs))
    assert sorted(file.name for file in folder.iterdir())[0] == "export.json"
    assert len(list(folder.iterdir())) == 3


# Of each: our settings, torchvision's own class, the shape of an image.
TORCHVISION = {
    "resnet": (
        ResNetConfig(stem="imagenet", classes=7),
        lambda: torchvision.models.resnet18(num_classes=7),
        (3, 32, 32),
    ),
    "vit": (
        ViTConfig(image=8, patch=4, width=8, depth=2, heads=2, classes=7),
        lambda: VisionTransformer(8, 4, 2, 2, 8, 32, num_classes=7),
        (3, 8, 8),
    ),
    "densenet": (
        DenseNetConfig(blocks=(2, 2), growth=4, stem="imagenet", classes=7),
        lambda: DenseNet(4, (2, 2), 8, num_classes=7),
        (3, 32, 32),
    ),
    "mobilenet_v2": (
        MobileNetV2Config(width=0.25, stem="imagenet", classes=7),
        lambda: torchvision.models.mobilenet_v2(width_mult=0.25, num_classes=7),
        (3, 32, 32),
    ),
}


@pytest.mark.parametrize("kind", TORCHVISION)
def test_torchvisions_own_class_takes_an_export(kind, zoo_of, export):
    """By `load_state_dict`, strictly: names and shapes are its own."""
    config, build, shape = TORCHVISION[kind]
    zoo = zoo_of(config, count=1)
    theirs, inputs = build().eval(), torch.randn(3, *shape)
    theirs.load_state_dict(load_file(export(zoo) / "row-0000000.safetensors"))
    with torch.no_grad():
        assert close(theirs(inputs), logits_of(zoo, 0, inputs))


def test_a_row_is_a_module_and_so_is_a_file(zoo_of, export):
    """`Zoo.network` and `dwf.load_network` of each format, against the zoo's own scoring."""
    config = CNNConfig((4,), (1, 8, 8), norm="batch", head="average")
    zoo = zoo_of(config, count=3)
    inputs = torch.randn(5, 1, 8, 8)
    expected = logits_of(zoo, 2, inputs)
    network = zoo.network(2)
    assert not network.training and close(network(inputs), expected)
    for kind, ending in ENDINGS.items():
        file = export(zoo, kind, kind, rows=(2,)) / f"row-0000002{ending}"
        loaded = dwf.load_network(file)
        assert not loaded.training and torch.equal(loaded(inputs), network(inputs))
        assert torch.equal(dwf.load_network(str(file), config)(inputs), network(inputs))


def test_a_safetensors_file_tells_its_architecture_wherever_it_lies(zoo, export, tmp_path):
    file = export(zoo, rows=(1,)) / "row-0000001.safetensors"
    moved = tmp_path / "alone.safetensors"
    os.replace(file, moved)
    with safe_open(moved, framework="np") as opened:
        told = json.loads(opened.metadata()["dwf"])
    assert told["network"]["widths"] == [64, 16, 10] and told["row"] == 1
    inputs = torch.randn(4, 64)
    assert torch.equal(dwf.load_network(moved)(inputs), zoo.network(1)(inputs))


def test_a_process_without_dwf_reads_an_export(zoo, export, tmp_path):
    """Python is started where dwf cannot be imported; torch and safetensors are."""
    folder = export(zoo, rows=(0,))
    np.save(tmp_path / "inputs.npy", np.random.default_rng(0).standard_normal((3, 64), np.float32))
    program = (
        "import sys\nsys.modules['dwf'] = None\n"
        "import numpy as np, torch\nfrom safetensors.torch import load_file\n"
        f"state = load_file({str(folder / 'row-0000000.safetensors')!r})\n"
        f"x = torch.from_numpy(np.load({str(tmp_path / 'inputs.npy')!r}))\n"
        "for i in (0, 1):\n"
        "    x = x @ state[f'layers.{i}.weight'].T + state[f'layers.{i}.bias']\n"
        "    x = x.relu() if i == 0 else x\n"
        f"np.save({str(tmp_path / 'logits.npy')!r}, x.numpy())\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    inputs = torch.from_numpy(np.load(tmp_path / "inputs.npy"))
    assert close(torch.from_numpy(np.load(tmp_path / "logits.npy")), logits_of(zoo, 0, inputs))


# --- bad input -----------------------------------------------------------------------------------


def test_a_file_that_is_not_what_it_should_be(zoo, export, tmp_path):
    refused = pytest.raises
    with refused(dwf.errors.ConfigError, match="no such file"):
        dwf.load_network(tmp_path / "nowhere.safetensors")
    text = tmp_path / "network.txt"
    text.write_text("no network")
    with refused(dwf.errors.ConfigError, match=r"end in \.safetensors, \.pt"):
        dwf.load_network(text)
    file = export(zoo, "npz", rows=(1,)) / "row-0000001.npz"
    (file.parent / "export.json").unlink()
    with refused(dwf.errors.ConfigError, match=r"keep export\.json beside it"):
        dwf.load_network(file)
    other = CNNConfig((4,), (1, 8, 8), head="average")
    with refused(dwf.errors.ShapeMismatch, match=r"row-0000001.npz: the state has layers.0.weight"):
        dwf.load_network(file, other)
    file.write_bytes(file.read_bytes()[:100])
    with refused(dwf.errors.CorruptCheckpoint, match="is damaged"):
        dwf.load_network(file, zoo.facts.network)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(b"\x08\x00")
    with refused(dwf.errors.CorruptCheckpoint, match="is damaged"):
        dwf.load_network(cut)


def test_pickled_code_is_not_run(zoo, tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    torch.save({"layers.0.weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(dwf.errors.CorruptCheckpoint, match="pickled objects"):
        dwf.load_network(tmp_path / "evil.pt", zoo.facts.network)
    assert not (tmp_path / "ran").exists()
