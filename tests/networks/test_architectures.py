"""Architectures: sizes against the published counts, shapes and outputs against torchvision's."""

import dataclasses

import pytest
import torch
import torchvision

from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.checks import check_state
from dwf.networks.config import (
    CifarResNetConfig,
    CNNConfig,
    DenseNetConfig,
    MobileNetV2Config,
    NetworkConfig,
    ResNetConfig,
    VGGConfig,
)
from dwf.networks.functional import build_network
from dwf.settings import build, load, to_dict
from dwf.zoo.config import ZooConfig
from tests.documentation import ROOT
from tests.networks.published import NARROW, PUBLISHED, SIMILAR, TORCHVISION, shape_of


@dataclasses.dataclass(frozen=True)
class Holder:
    network: NetworkConfig


def parameters_of(config) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_network(config).parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_published_size(name):
    config, count = PUBLISHED[name]
    assert parameters_of(config) == count


@pytest.mark.parametrize("name", SIMILAR)
def test_networks_in_place_of_unpublished_ones_have_about_their_size(name):
    config, count, published = SIMILAR[name]
    assert parameters_of(config) == count == pytest.approx(published, rel=0.02)
    if name.startswith("p-diff"):
        file = f"pdiff_{name.removeprefix('p-diff ').lower()}_cifar10.yaml"
        assert load(ZooConfig, ROOT / "configs" / "zoo" / file).network == config


@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_are_torchvisions_at_torchvisions_sizes(name):
    config, count = TORCHVISION[name]
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert parameters_of(config) == count == published
    with torch.device("meta"):
        ours, theirs = build_network(config), torchvision.models.get_model(name)
    shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "densenet121"])
def test_networks_compute_what_torchvisions_compute(name):
    ours, theirs = build_network(TORCHVISION[name][0]), torchvision.models.get_model(name).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


def test_stems_and_heads_for_small_images_change_only_their_own_size():
    stem = 64 * 3 * (7 * 7 - 3 * 3)
    for depth, features in ((18, 512), (34, 512), (50, 2048)):
        published = TORCHVISION[f"resnet{depth}"][1]
        expected = published - stem - 990 * (features + 1)
        assert parameters_of(ResNetConfig(depth)) == expected
    densenet, mobilenet = TORCHVISION["densenet121"][1], TORCHVISION["mobilenet_v2"][1]
    assert parameters_of(DenseNetConfig()) == densenet - stem - 990 * (1024 + 1)
    assert parameters_of(MobileNetV2Config()) == mobilenet - 990 * (1280 + 1)
    linears = ((512 * 49, 4096), (4096, 4096), (4096, 1000))
    features = TORCHVISION["vgg16_bn"][1] - sum(i * o + o for i, o in linears)
    assert parameters_of(VGGConfig(16)) == features + 512 * 10 + 10


def test_resnets_of_6n_plus_2_layers_have_the_size_of_the_formula():
    def formula(blocks: int, width: int) -> int:
        count, fan_in = 27 * width + 2 * width, width
        for out in (width, 2 * width, 4 * width):
            count += sum(9 * (fan_in if i == 0 else out) * out + 2 * out for i in range(blocks))
            count += blocks * (9 * out * out + 2 * out)
            count += 0 if fan_in == out else fan_in * out + 2 * out
            fan_in = out
        return count + 10 * fan_in + 10

    for depth, width in ((8, 4), (20, 16), (32, 16), (56, 8)):
        assert parameters_of(CifarResNetConfig(depth, width)) == formula((depth - 2) // 6, width)


@pytest.mark.parametrize("name", NARROW)
def test_narrow_networks_map_images_to_logits(name):
    network = build_network(NARROW[name])
    assert network(torch.randn(3, *shape_of(name))).shape == (3, 10)
    assert build(NetworkConfig, to_dict(NARROW[name]), source="test") == NARROW[name]


@pytest.mark.parametrize("name", sorted(set(NARROW) - {"cnn_dropout", "vit_dropout"}))
def test_every_architecture_takes_images_of_one_channel(name):
    config = NARROW[name]
    if isinstance(config, CNNConfig):
        config = dataclasses.replace(config, input=(1, 16, 16))
    else:
        config = dataclasses.replace(config, channels=1)
    images = torch.randn(2, 1, *shape_of(name)[1:])
    assert build_network(config)(images).shape == (2, 10)


def test_pooling_before_the_activation_is_another_function_where_that_is_not_monotone():
    config = CNNConfig((4,), (1, 8, 8), pools=2, activation="gelu")
    after, before = (
        build_network(dataclasses.replace(config, pool_first=first)) for first in (False, True)
    )
    before.load_state_dict(after.state_dict())
    images = torch.randn(5, 1, 8, 8)
    maps = torch.nn.functional.conv2d(images, after.convs[0].weight, after.convs[0].bias)
    gelu, pool = torch.nn.functional.gelu, torch.nn.functional.max_pool2d
    head = after.linears[0]
    torch.testing.assert_close(after(images), head(pool(gelu(maps), 2).flatten(1)))
    torch.testing.assert_close(before(images), head(gelu(pool(maps, 2)).flatten(1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernels": [3, 3]}, r"kernels = \[3, 3\].*or 3 for 3"),
        ({"kernels": [3, 0, 3]}, r"network.kernels\[1\] = 0: allowed is at least 1"),
        ({"groups": [1, 3, 1]}, r"groups = 3 of convolution 1 does not divide its 16 inputs"),
        ({"pools": 4}, r"convolution 2 .* leaves .* of input = \[1, 28, 28\]"),
        ({"input": [28, 28]}, r"input = \[28, 28\]: expected \[channels, height, width\]"),
        ({"channels": []}, "at least one convolution"),
        ({"kind": "resnet_cifar", "depth": 18}, r"depth = 18: expected 6n \+ 2"),
        ({"kind": "resnet", "depth": 20}, "one of 18, 34, 50"),
        ({"kind": "vit", "patch": 5}, "patch = 5 does not divide image = 32"),
        ({"kind": "vit", "heads": 5}, "heads = 5 does not divide width = 192"),
        ({"kind": "convnext", "depths": [1]}, "expected one of each"),
        ({"kind": "convnet"}, r"kind = 'convnet': allowed is one of .*did you mean 'convnext'"),
    ],
)
def test_settings_that_make_no_network_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(Holder, {"network": {"kind": "cnn"} | settings}, source="zoo.yaml")


def test_a_state_of_another_network_is_refused_and_named():
    network = build_network(NARROW["resnet_cifar"])
    state = {n: t[None] for n, t in network.state_dict().items() if t.is_floating_point()}
    check_state(network, state)
    lacking = {n: t for n, t in state.items() if n != "layer2.0.shortcut.1.running_mean"}
    with pytest.raises(ShapeMismatch, match=r"lacks layer2\.0\.shortcut\.1\.running_mean;"):
        check_state(network, lacking)
    with pytest.raises(ShapeMismatch, match=r"no use for extra"):
        check_state(network, state | {"extra": torch.zeros(1, 2)})
    with pytest.raises(ShapeMismatch, match=r"another shape linear.bias \[3\] instead of \[10\]"):
        check_state(network, state | {"linear.bias": torch.zeros(1, 3)})
