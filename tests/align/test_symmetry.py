"""Which axes permute together."""

import pytest
import torch
from torch import nn

from dwf.align.symmetry import Group, permute, symmetry_of
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Entry, Layout


def test_groups_of_an_mlp():
    network = build_network(MLPConfig((5, 4, 3, 2)))
    assert symmetry_of(network, Layout.of(network)) == (
        Group(4, (("layers.0.weight", 0), ("layers.0.bias", 0), ("layers.1.weight", 1))),
        Group(3, (("layers.1.weight", 0), ("layers.1.bias", 0), ("layers.2.weight", 1))),
    )


def test_unknown_architecture_and_wrong_layout_are_refused():
    network = build_network(MLPConfig((5, 4, 2)))
    with pytest.raises(ConfigError, match="Conv2d cannot be aligned, only MLP"):
        symmetry_of(nn.Conv2d(1, 1, 1), Layout.of(network))
    with pytest.raises(ShapeMismatch, match="not of this network"):
        symmetry_of(network, Layout.of(build_network(MLPConfig((5, 3, 2)))))


def test_tensors_of_any_rank_are_permuted():
    layout = Layout((Entry("kernel", (3, 2, 2, 4), 0, "weight"),))
    groups = [Group(3, (("kernel", 0),)), Group(4, (("kernel", 3),))]
    weights_ND = torch.arange(2 * 48.0).view(2, 48)
    orders = [torch.tensor([[2, 0, 1], [0, 2, 1]]), torch.tensor([[3, 1, 0, 2], [1, 0, 3, 2]])]
    permuted = permute(weights_ND, layout, groups, orders).view(2, 3, 2, 2, 4)
    for n in range(2):
        expected = weights_ND[n].view(3, 2, 2, 4)[orders[0][n]][..., orders[1][n]]
        assert torch.equal(permuted[n], expected)
