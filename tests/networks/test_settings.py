"""What settings say of their networks, against the networks that are built from them."""

import dataclasses
import typing

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dwf.errors import ConfigError
from dwf.networks.config import (
    NETWORKS,
    CNNConfig,
    MLPConfig,
    NetworkConfig,
    PythonConfig,
    ResNetConfig,
    UnknownConfig,
    ViTConfig,
)
from dwf.networks.functional import build_network, is_stacked
from dwf.networks.mlp import MLP
from dwf.trust import trust_code
from tests.networks.published import NARROW, TORCHVISION, shape_of

OWN = PythonConfig("tests.networks.test_settings:own", {"num_classes": 4})
SMALL = NARROW | {"mlp": MLPConfig((12, 5, 4))}
SHAPES = {name: shape_of(name) for name in NARROW} | {"mlp": (12,)}


@pytest.fixture(autouse=True)
def own_network_is_named(nothing_is_trusted):
    trust_code(OWN.target)


def own(**classes) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, *classes.values()))


def logits_of(config, shape) -> torch.Tensor:
    with torch.no_grad():
        return build_network(config)(torch.randn(2, *shape))


def test_every_kind_is_looked_at():
    unknown = {UnknownConfig().kind}  # of which nothing can be built
    assert {config.kind for config in SMALL.values()} | {OWN.kind} | unknown == set(NETWORKS)
    assert len(typing.get_args(NetworkConfig)) == len(NETWORKS)


@pytest.mark.parametrize("name", SMALL)
def test_inputs_and_classes_are_those_of_the_network(name):
    config, shape = SMALL[name], SHAPES[name]
    assert len(config.input_shape) == len(shape)
    assert all(said in (None, side) for said, side in zip(config.input_shape, shape, strict=True))
    assert logits_of(config, shape).shape == (2, config.num_classes)


@pytest.mark.parametrize("name", SMALL)
def test_other_classes_are_another_number_of_logits_and_nothing_else(name):
    config, shape = SMALL[name], SHAPES[name]
    wider = config.with_classes(config.num_classes + 3)
    assert type(wider) is type(config) and wider.num_classes == config.num_classes + 3
    assert logits_of(wider, shape).shape == (2, config.num_classes + 3)
    assert wider.with_classes(config.num_classes) == config


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"mlp"}))
def test_a_side_that_may_be_any_may_be_another(name):
    config, shape = SMALL[name], SHAPES[name]
    if None not in config.input_shape:
        return
    larger = (shape[0], shape[1] + 16, shape[2] + 16)
    assert logits_of(config, larger).shape == (2, config.num_classes)


def test_a_network_of_the_users_own_says_what_its_arguments_say():
    assert OWN.input_shape is None and OWN.multiplications((12,)) is None
    assert OWN.num_classes == 4 and logits_of(OWN, (12,)).shape == (2, 4)
    assert logits_of(OWN.with_classes(6), (12,)).shape == (2, 6)
    silent = dataclasses.replace(OWN, arguments={})
    assert silent.num_classes is None
    with pytest.raises(ConfigError, match=r"classes = 6: .* neither classes nor num_classes"):
        silent.with_classes(6)


@pytest.mark.parametrize("name", [*SMALL, "python"])
def test_the_module_runs_stacked_where_the_settings_say_so(name):
    config = SMALL.get(name, OWN)
    assert is_stacked(build_network(config)) == config.is_stacked == (name == "mlp")


def test_a_module_of_the_users_own_may_run_stacked():
    class Own(MLP):
        pass

    assert is_stacked(Own(MLPConfig((3, 2)))) and not is_stacked(nn.Linear(3, 2))


@pytest.mark.parametrize("name", SMALL)
def test_multiplications_are_what_torch_counts(name):
    """On numbers, in float64 and by plain attention, of which nothing is left out of the count."""
    config, shape = SMALL[name], SHAPES[name]
    network = build_network(config).double().requires_grad_(False)
    network.train()  # or attention would be one fused step, which is not counted
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.Dropout):
            module.eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(torch.zeros(3, *shape, dtype=torch.float64))
    assert config.multiplications(shape) == counter.get_total_flops() / 2 / 3


@pytest.mark.parametrize("name", TORCHVISION)
def test_multiplications_of_published_networks_are_the_published(name):
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]
    config = TORCHVISION[name][0]
    assert config.multiplications((3, 224, 224)) / 1e9 == pytest.approx(published, abs=6e-4)


def test_multiplications_of_small_networks_are_those_by_hand():
    assert MLPConfig((64, 32, 16, 10)).multiplications((1, 8, 8)) == 64 * 32 + 32 * 16 + 16 * 10
    config = CNNConfig((6, 4), (3, 10, 10), kernels=(3, 5), groups=(1, 2), hidden=(9,))
    first, second = 8 * 8 * 6 * 3 * 3 * 3, 4 * 4 * 4 * 3 * 5 * 5
    assert config.multiplications((3, 10, 10)) == first + second + 64 * 9 + 9 * 10
    config = ViTConfig(image=8, patch=4, width=6, depth=2, heads=2, mlp_ratio=2.0, channels=1)
    tokens, width = 5, 6
    block = tokens * (4 * width**2 + 2 * 2 * width**2) + 2 * tokens**2 * width
    assert config.multiplications((1, 8, 8)) == 4 * 16 * width + 2 * block + width * 10


def test_of_an_image_that_is_not_taken_no_arithmetic_is_known():
    assert CNNConfig(input=(1, 8, 8), channels=(4,)).multiplications((3, 32, 32)) is None
    assert ViTConfig(image=8).multiplications((3, 9, 9)) is None
    assert ResNetConfig(width=4).multiplications((1, 32, 32)) is None


def test_a_misfit_is_told_with_its_cure():
    config = MLPConfig((64, 8, 10))
    assert config.misfit("digits", (1, 8, 8), num_classes=10) is None
    assert config.misfit("digits", (1, 8, 8), num_classes=3) is None, "more logits than classes"
    said = config.misfit("iris", (4,), num_classes=3)
    assert said.endswith("iris has 4 inputs and 3 classes: give 4 first and 3 last")
    assert config.misfit("mnist", (1, 28, 28), num_classes=10).endswith(", or another data.size")
