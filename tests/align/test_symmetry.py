"""Which axes permute together."""

import math

import pytest
import torch

from dwf.align.groups import Group, Member, permute
from dwf.align.symmetry import describe, log_size, symmetry_of
from dwf.align.verify import verify_symmetry
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.config import (
    CifarResNetConfig,
    CNNConfig,
    DenseNetConfig,
    MLPConfig,
    ResNetConfig,
    ViTConfig,
)
from dwf.networks.functional import build_network
from dwf.zoo.layout import Entry, Layout


def groups_of(config, shape=(3, 16, 16)):
    network = build_network(config)
    return symmetry_of(network, Layout.of(network), input_shape=shape)


def log_orders(*sizes):
    """Logarithm of how many orders groups of these sizes have: the product of factorials."""
    return sum(math.log(math.factorial(size)) for size in sizes)


def test_groups_of_an_mlp():
    network = build_network(MLPConfig((5, 4, 3, 2)))

    def layer(i, size):
        members = (
            Member(f"layers.{i}.weight", 0, power=1),
            Member(f"layers.{i}.bias", 0, power=1),
            Member(f"layers.{i + 1}.weight", 1, power=-1),
        )
        return Group(size, members, scales=True)

    assert symmetry_of(network, Layout.of(network), input_shape=(5,)) == (layer(0, 4), layer(1, 3))


@pytest.mark.parametrize(
    ("activation", "scales", "signs"),
    [("relu", True, False), ("tanh", False, True), ("gelu", False, False)],
)
def test_what_an_activation_lets_through(activation, scales, signs):
    (group,) = groups_of(MLPConfig((3, 4, 2), activation), (3,))
    assert (group.scales, group.signs) == (scales, signs)
    assert all(bool(member.power) == (scales or signs) for member in group.members)


def test_a_residual_network_has_a_stream_for_each_stage_and_units_within_each_block():
    groups = groups_of(ResNetConfig(18, width=4))
    assert [g.size for g in groups if g.kind == "stream"] == [4, 8, 16, 32]
    assert sorted(g.size for g in groups if g.kind == "units") == [4, 4, 8, 8, 16, 16, 32, 32]
    stream = next(g for g in groups if g.size == 8 and g.kind == "stream")
    moved = {(m.name, m.axis) for m in stream.members}
    # The shortcut ties the stage's first block to the others.
    assert {("layer2.0.downsample.0.weight", 0), ("layer2.1.conv2.weight", 0)} <= moved
    assert {("layer2.1.conv1.weight", 1), ("layer3.0.downsample.0.weight", 1)} <= moved
    # What feeds a normalisation has no scale of its own; running statistics do not count.
    members = {(m.name, m.axis): m for m in stream.members}
    assert members["layer2.0.conv2.weight", 0].power == 0
    assert members["layer2.0.bn2.weight", 0].power == 1
    assert members["layer2.1.conv1.weight", 1].power == -1
    assert not members["layer2.0.bn2.running_mean", 0].cost
    assert len(groups_of(CifarResNetConfig(20, width=4))) == 12


def test_a_transformer_has_heads_with_their_own_units_and_a_stream():
    groups = groups_of(ViTConfig(image=16, width=12, depth=2, heads=3, mlp_ratio=2))
    kinds = [group.kind for group in groups]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "stream": 1,
        "query_key": 6,
        "value_output": 6,
        "heads": 2,
        "units": 2,
    }
    # An order of 12 features and, per layer, of 24 units, 3 heads and twice 4 units in each.
    expected = log_orders(12) + 2 * log_orders(24, 3, *[4] * 6)
    assert log_size(groups) == pytest.approx(expected)
    for g, group in enumerate(groups):
        if group.kind in ("query_key", "value_output"):
            assert groups[group.parent].kind == "heads"
            assert g < group.parent
    attention = "encoder.layers.encoder_layer_0.self_attention"
    heads = next(group for group in groups if group.kind == "heads")
    places = {(m.name, m.axis): (m.start, m.outer, m.inner) for m in heads.members}
    assert places[f"{attention}.in_proj_weight", 0] == (0, 3, 4)
    assert places[f"{attention}.out_proj.weight", 1] == (0, 1, 4)
    keys = [g for g in groups if g.kind == "query_key" and g.place == 1]
    starts = [m.start for m in keys[0].members if m.name == f"{attention}.in_proj_weight"]
    assert starts == [4, 16]  # the second head's queries, and its keys behind all queries


def test_flattened_places_and_concatenated_parts_are_found():
    cnn = groups_of(CNNConfig((4, 5), (3, 16, 16), pools=2, hidden=(7,)))
    last = next(m for m in cnn[1].members if m.axis == 1)
    assert (last.outer, last.inner) == (1, 4)  # 2 x 2 places of each channel
    dense = groups_of(DenseNetConfig((2, 3), growth=4))
    # Each layer of a dense block adds a group, and all later layers read it from its own start.
    starts = [m.start for g in dense if g.size == 4 for m in g.members if m.axis == 1]
    assert len(set(starts)) > 1


def test_grouped_convolutions_move_blocks_and_units_within_them():
    groups = groups_of(CNNConfig((6, 9), (3, 8, 8), groups=(1, 3), head="average"), (3, 8, 8))
    blocks = [group for group in groups if group.kind == "blocks"]
    assert [group.size for group in blocks] == [3]
    assert log_size(groups) == pytest.approx(log_orders(3, *[2] * 3, *[3] * 3))
    rows = {m.rows for g in groups for m in g.members if m.rows is not None}
    assert rows == {(0, 3), (3, 6), (6, 9)}


def test_balanced_takes_units_that_scale():
    network = build_network(CNNConfig((4,), (1, 8, 8), activation="gelu"))
    with pytest.raises(ConfigError, match="no unit of this CNN can be scaled"):
        symmetry_of(network, Layout.of(network), input_shape=(1, 8, 8), scale="balanced")


def test_another_layout_is_refused():
    network = build_network(MLPConfig((5, 4, 2)))
    with pytest.raises(ShapeMismatch, match="not of this network"):
        symmetry_of(network, Layout.of(build_network(MLPConfig((5, 3, 2)))), input_shape=(5,))


def test_the_network_is_left_as_it_was():
    network = build_network(CNNConfig((4,), (1, 8, 8), norm="batch", dropout=0.5, hidden=(3,)))
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    groups = symmetry_of(network, Layout.of(network), input_shape=(1, 8, 8))
    verify_symmetry(network, groups, input_shape=(1, 8, 8))
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_description():
    groups = groups_of(ResNetConfig(18, width=4))
    assert describe(groups) == "12 groups: 4 stream (4 to 32), 8 units (4 to 32)"
    assert describe(groups_of(MLPConfig((3, 4, 2)), (3,))) == "1 group: 1 units (4)"
    assert describe(()) == "0 groups"


def test_tensors_of_any_rank_are_permuted():
    layout = Layout((Entry("kernel", (3, 2, 2, 4), offset=0, role="weight"),))
    groups = [Group(3, (Member("kernel", 0),)), Group(4, (Member("kernel", 3),))]
    weights_ND = torch.arange(2 * 48.0).view(2, 48)
    orders = [torch.tensor([[2, 0, 1], [0, 2, 1]]), torch.tensor([[3, 1, 0, 2], [1, 0, 3, 2]])]
    permuted = permute(weights_ND, layout, groups=groups, orders=orders).view(2, 3, 2, 2, 4)
    for n in range(2):
        expected = weights_ND[n].view(3, 2, 2, 4)[orders[0][n]][..., orders[1][n]]
        assert torch.equal(permuted[n], expected)
