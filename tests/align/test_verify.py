"""Groups of whole networks are right, and wrong ones are found out."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dwf.align.groups import Group, Member
from dwf.align.symmetry import symmetry_of
from dwf.align.verify import verify_symmetry
from dwf.commands import COMMANDS
from dwf.errors import ConfigError
from dwf.networks.config import CNNConfig, MLPConfig, ResNetConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from tests.networks.published import NARROW, PUBLISHED, SIMILAR, shape_of


def groups_of(network, shape):
    return symmetry_of(network, Layout.of(network), input_shape=shape)


def input_shape(config):
    if config.kind == "mlp":
        return (config.widths[0],)
    return config.input if config.kind == "cnn" else (3, 32, 32)


def axes_that_move(entry, network):
    """The axes of a tensor that run over hidden units: not over images, classes, places."""
    last = {name for name, _ in list(network.named_parameters())[-2:]}
    if entry.name in ("class_token", "encoder.pos_embedding"):
        return {2}
    axes = set() if entry.name in last else {0}
    convolution = next(m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    is_first = (
        network.get_parameter(entry.name) is convolution.weight if entry.role == "weight" else True
    )
    if entry.role == "weight" and len(entry.shape) > 1 and not is_first:
        axes.add(1)
    return {axis for axis in axes if entry.shape[axis] > 1}


@pytest.mark.parametrize("name", NARROW)
def test_narrow_networks_of_every_architecture(name):
    network, shape = build_network(NARROW[name]), shape_of(name)
    groups = groups_of(network, shape)
    assert verify_symmetry(network, groups, input_shape=shape) < 1e-11
    moved = {(member.name, member.axis) for group in groups for member in group.members}
    for entry in Layout.of(network).entries:
        for axis in axes_that_move(entry, network):
            assert (entry.name, axis) in moved


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "18" not in name])
def test_published_networks(name):
    config, _ = PUBLISHED[name]
    network, shape = build_network(config), input_shape(config)
    assert verify_symmetry(network, groups_of(network, shape), input_shape=shape) < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet-18", *SIMILAR])
def test_large_and_similar_networks(name):
    config = (PUBLISHED | SIMILAR)[name][0]
    network, shape = build_network(config), input_shape(config)
    assert verify_symmetry(network, groups_of(network, shape), input_shape=shape) < 1e-11


# Number of groups: by hand from the architecture, where that is short.
QUICK = {
    "squeezenet1_1": (64, 25),  # stem, and 8 fires of a squeeze and two expansions
    "mobilenet_v3_small": (32, None),
    "mnasnet0_5": (32, None),
    "shufflenet_v2_x0_5": (32, 80),
    "efficientnet_b0": (32, None),
}
SLOW = {
    "alexnet": (64, 7),  # 5 convolutions and 2 hidden layers
    "vgg11_bn": (32, 10),  # 8 convolutions and 2 hidden layers
    "googlenet": (64, 57),  # 3 + 9 inceptions of 6
    "densenet121": (64, 120),  # stem, 58 layers of 2, 3 transitions
    "resnext50_32x4d": (64, None),
    "regnet_x_400mf": (64, None),
    "convnext_tiny": (64, 22),  # 4 streams, 18 blocks
    "swin_t": (64, 4 + 12 + 12 + 2 * 138),  # streams, units, heads, units of each of 138 heads
    "swin_v2_t": (64, 4 + 12 + 2 * 12 + 12 + 2 * 138),  # and units that make positions' biases
    "vit_b_32": (32, 1 + 12 * (1 + 1 + 2 * 12)),
    "inception_v3": (128, 94),  # convolutions
}


def check_torchvision(name, size, num_groups):
    from torchvision import models

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit"):
        options = {"image_size": size}
    network, shape = models.get_model(name, weights=None, **options), (3, size, size)
    groups = groups_of(network, shape)
    assert verify_symmetry(network, groups, input_shape=shape) < 1e-11
    assert len(groups) == num_groups if num_groups else len(groups) >= 18


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_networks_that_nobody_tuned_for(name):
    check_torchvision(name, *QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnasnet0_5", "efficientnet_b0", *SLOW])
def test_more_networks_that_nobody_tuned_for(name):
    check_torchvision(name, *(QUICK | SLOW)[name])


@pytest.mark.slow
def test_a_network_that_multiplies_rounding_is_checked_to_what_it_allows():
    from torchvision import models

    torch.manual_seed(0)
    network, shape = models.efficientnet_v2_s(weights=None), (3, 32, 32)
    groups = groups_of(network, shape)
    assert len(groups) == 75
    assert verify_symmetry(network, groups, input_shape=shape) < 1e-3


def test_a_group_that_is_wrong_is_named():
    network = build_network(CNNConfig((4, 5), (3, 8, 8), head="average"))
    first, second = groups_of(network, (3, 8, 8))
    wrong = replace(second, members=second.members[1:])
    with pytest.raises(ConfigError, match=r"group 1 \(units of 5: .*\): another order changes"):
        verify_symmetry(network, (first, wrong), input_shape=(3, 8, 8))


@pytest.mark.parametrize("leave_out", ["bn1.running_mean", "layer1.1.bn2.running_var", "fc.weight"])
def test_any_member_left_out_is_found_out(leave_out):
    network, shape = build_network(ResNetConfig(18, width=4)), (3, 8, 8)
    groups = [
        replace(group, members=tuple(m for m in group.members if m.name != leave_out))
        for group in groups_of(network, shape)
    ]
    with pytest.raises(ConfigError, match="another order changes the logits"):
        verify_symmetry(network, groups, input_shape=shape)


def test_a_scale_where_none_is_free_is_found_out():
    network = build_network(MLPConfig((3, 8, 2), "gelu"))
    members = (Member("layers.0.weight", 0, power=1), Member("layers.0.bias", 0, power=1))
    group = Group(8, (*members, Member("layers.1.weight", 1, power=-1)), scales=True)
    with pytest.raises(ConfigError, match="scaling units changes the logits"):
        verify_symmetry(network, [group], input_shape=(3,))


def test_a_network_that_does_not_see_its_images_cannot_be_checked():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(torch.zeros_like(x))

    with pytest.raises(ConfigError, match="the same logits"):
        verify_symmetry(Blind(), (), input_shape=(2,))


def test_command_prints_a_table(tmp_path, capsys):
    path = tmp_path / "small.yaml"
    path.write_text("network: {kind: mlp, widths: [4, 16, 3]}\ndata: {kind: iris}\ncount: 2\n")
    COMMANDS["symmetry"].run([str(path), "--shape", "4", "--members"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| small | 131 | 1 group: 1 units (16) | ")
    assert float(lines[2].split("|")[4]) < 1e-12
    assert lines[3] == (
        "  0: units of 16: scales layers.0.weight[0], layers.0.bias[0], layers.1.weight[1]"
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_wrong_group_of_two_is_found_out_whatever_is_drawn(seed):
    """Half of all random orders of two leave them, and two units are often dead on few images."""
    network = build_network(MLPConfig((3, 2, 2)))
    (group,) = groups_of(network, (3,))
    wrong = replace(group, members=group.members[:2])
    with pytest.raises(ConfigError, match="another order changes the logits"):
        verify_symmetry(network, [wrong], input_shape=(3,), seed=seed)


@pytest.mark.parametrize("seed", range(8))
def test_units_that_only_turn_are_no_group(seed):
    class Turned(nn.Module):
        """Three units whose sums with their neighbours are taken: turns leave it, swaps do not."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            hidden = self.layer(x)
            return (hidden * (hidden.roll(1, 1) ** 2)).sum(1, keepdim=True)

    group = Group(3, (Member("layer.weight", 0), Member("layer.bias", 0)))
    with pytest.raises(ConfigError, match="another order changes the logits"):
        verify_symmetry(Turned(), [group], input_shape=(3,), seed=seed)
