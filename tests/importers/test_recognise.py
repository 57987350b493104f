"""Architectures recognised by names and shapes alone, against the settings they were built from."""

import pytest
import torchvision
from torch import nn

from dwf.importers.recognise import block_of, fits, recognise
from dwf.networks.config import (
    CifarResNetConfig,
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    ViTConfig,
)
from dwf.networks.functional import build_network

SEEN = [
    MLPConfig((12, 7, 5, 3)),
    MLPConfig((12, 3)),
    CNNConfig((4, 6), input=(1, 28, 28), kernels=3, pools=2, hidden=(9,)),
    CNNConfig((4, 6), input=(1, 28, 28), kernels=(5, 3), strides=2, norm="batch"),
    CNNConfig((4, 6, 8), input=(1, 28, 28), strides=2, head="average"),
    CifarResNetConfig(20, 4),
    ResNetConfig(18, 4),
    ResNetConfig(34, 4, classes=7, channels=1, stem="imagenet"),
    ViTConfig(image=16, patch=4, width=12, depth=2, heads=1, mlp_ratio=2.0),
]


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    state = network.state_dict()
    return {name: tuple(t.shape) for name, t in state.items() if t.is_floating_point()}


@pytest.mark.parametrize("config", SEEN, ids=repr)
def test_settings_are_found_again(config):
    shapes = shapes_of(build_network(config))
    image = config.input if isinstance(config, CNNConfig) else None
    found = recognise(shapes, image=image)
    assert type(found) is type(config) and fits(found, shapes)
    if not isinstance(config, CNNConfig):
        assert found == config
    else:
        assert (found.channels, found.hidden, found.norm) == (
            config.channels,
            config.hidden,
            config.norm,
        )
        assert found.per_layer("kernels") == config.per_layer("kernels")
    assert block_of(found).startswith(f"network: {{kind: {config.kind}")


def test_torchvisions_resnet_is_known_by_its_names():
    shapes = shapes_of(torchvision.models.resnet18(num_classes=10))
    assert recognise(shapes) == ResNetConfig(18, stem="imagenet")


def test_other_networks_are_not_taken_for_known_ones():
    shapes = shapes_of(nn.Sequential(nn.Conv1d(3, 4, 3), nn.Linear(4, 2)))
    assert recognise(shapes) is None
    assert recognise(shapes_of(nn.LSTM(3, 4))) is None


def test_odd_shapes_are_no_network():
    """Names of a vision transformer's, of too few axes; and axes without numbers."""
    names = ("conv_proj.weight", "encoder.pos_embedding", "heads.head.weight")
    names += ("encoder.layers.encoder_layer_0.mlp.0.weight",)
    for shape in ((), (3,), (0, 0, 0, 0)):
        assert recognise(dict.fromkeys(names, shape)) is None
    assert recognise({"a.weight": (0, 0, 0, 0), "b.weight": (0, 0)}) is None and not recognise({})
