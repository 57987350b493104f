"""Which numbers make which token: chains of layers, and networks that are none."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dwf.align.symmetry import symmetry_of
from dwf.codecs.neurons.layers import check_units, read_layers, token_sequence, unit_groups
from dwf.errors import ConfigError
from dwf.networks.config import CNNConfig, MLPConfig, NetworkConfig, PythonConfig, VGGConfig
from dwf.networks.functional import build_network
from dwf.settings import load
from dwf.trust import trust_code
from dwf.zoo.config import ZooConfig
from dwf.zoo.layout import Layout
from tests.codecs.zoos import ARCHITECTURES, CNN3, layout_of, write_random_zoo

CONFIGS = Path(__file__).parents[2] / "configs" / "zoo"


def shipped(name: str) -> NetworkConfig:
    return load(ZooConfig, CONFIGS / f"{name}.yaml").network


CHAINS = {
    "one hidden layer": MLPConfig((64, 16, 10)),
    "two": MLPConfig((9, 5, 4, 3)),
    "three": MLPConfig((9, 5, 4, 6, 3)),
    "four": MLPConfig((9, 5, 4, 6, 2, 3), activation="tanh"),
    "average": CNNConfig((4, 5, 6), (1, 12, 12), head="average"),
    "flatten": CNNConfig((6, 8), (3, 10, 10), pools=2),
    "flatten and hidden": CNNConfig((6, 8), (3, 10, 10), hidden=(9, 7)),
    "norms": CNNConfig((4, 4, 4), (3, 12, 12), norm="batch", hidden=(9,)),
    "norms, no bias": CNNConfig((4, 5), (3, 12, 12), norm="batch", bias=False, head="average"),
    "one filter each": CNNConfig((1, 1), (1, 8, 8), norm="batch"),
    "Unterthiner": shipped("unterthiner_mnist"),
    "SANE": CNN3,
    "p-diff": shipped("pdiff_convnet_cifar10"),
}


@pytest.mark.parametrize("config", CHAINS.values(), ids=CHAINS.keys())
def test_every_weight_is_in_one_token(config):
    layout = layout_of(config)
    tokens = token_sequence((layout,))
    found = np.sort(np.concatenate([place.ravel() for place in tokens.places[0]]))
    wanted = np.concatenate([np.arange(*span) for span in layout.spans(buffers=False)])
    assert np.array_equal(found, wanted)
    place_TC = tokens.place_ATC[0]
    assert np.array_equal(np.sort(place_TC[place_TC >= 0]), wanted)
    widths = [len(place) for place in tokens.places[0]]
    assert widths == tokens.num_units and len(place_TC) == sum(widths)


def test_a_filters_token_is_all_that_is_its_own():
    """By hand, of a network with norms, one place behind the flatten, no hidden linear layer."""
    layout = layout_of(CNNConfig((2, 3), (1, 10, 10), norm="batch", pools=2))
    row_D = torch.arange(layout.size)
    state = layout.unflatten(row_D)
    first, second, output = token_sequence((layout,), logarithm=True).places[0]
    size = layout.size
    for u in range(2):
        own = [
            state[f"{key}.0.{leaf}"][u] for key, leaf in (("convs", "bias"), ("norms", "weight"))
        ]
        wanted = [*state["convs.0.weight"][u].ravel(), *own, state["norms.0.bias"][u], size + u]
        assert first[u].tolist() == [int(value) for value in wanted]
    for u in range(3):
        kernel = state["convs.1.weight"][u].ravel().tolist()
        assert second[u, :18].tolist() == kernel
        assert second[u, 21:31].tolist() == state["linears.0.weight"][:, u].tolist()
        assert second[u, 31] == size + 2 + u
    assert output.tolist() == [state["linears.0.bias"].tolist()]


def test_behind_a_flatten_a_filter_has_a_block_of_columns():
    layout = layout_of(CNNConfig((2, 3), (1, 8, 8)))
    state = layout.unflatten(torch.arange(layout.size))
    second = token_sequence((layout,)).places[0][1]
    for u in range(3):
        taken = state["linears.0.weight"][:, u * 16 : (u + 1) * 16]
        assert second[u, 19:].tolist() == taken.ravel().tolist()


@pytest.mark.parametrize("name", CHAINS)
def test_units_are_those_that_alignment_traces(name):
    network = build_network(CHAINS[name])
    layout, shape = Layout.of(network), CHAINS[name].input_shape
    traced = symmetry_of(network, layout, input_shape=shape)
    relu = CHAINS[name].activation == "relu"

    def parts(group):
        members = [member for member in group.members if member.cost]
        return {(m.name, m.axis, m.outer, m.inner, m.power if relu else 0) for m in members}

    several = [group for group in unit_groups(layout) if group.size > 1]  # of one there is no order
    assert len(traced) == len(several)
    for ours, theirs in zip(several, traced, strict=True):
        assert ours.size == theirs.size and parts(ours) == parts(theirs)
        assert theirs.scales == relu


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(nn.Linear(9, 6), nn.Linear(5, 4)), "1.weight (weight, shape [4, 5]"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(6, 2)), "1.weight (weight, shape [2, 6]"),
        (nn.Sequential(nn.Linear(9, 4), nn.Conv2d(4, 2, 1)), "1.weight (weight, shape [2, 4, 1, 1"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 6, 3, groups=2)), "1.weight"),
        (nn.Sequential(nn.Linear(9, 6), nn.Linear(6, 4), nn.BatchNorm1d(4)), "2.weight (norm"),
        (nn.Sequential(nn.BatchNorm1d(9), nn.Linear(9, 6), nn.Linear(6, 4)), "0.weight (norm"),
        (nn.Sequential(nn.Linear(9, 6), nn.LayerNorm((2, 3)), nn.Linear(6, 4)), "1.weight (norm"),
        (nn.Linear(9, 6), "bias (bias, shape [6]"),
        (nn.BatchNorm1d(9), "weight (norm, shape [9]"),
        (nn.MultiheadAttention(4, 2), "out_proj.weight"),
    ],
)
def test_names_the_tensor_it_has_no_token_for(network, named):
    pattern = rf"cannot make tokens of {re.escape(named)}.*choose the codec tokens or sane"
    with pytest.raises(ConfigError, match=pattern):
        read_layers(Layout.of(network))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("resnet", "layer2.0.shortcut.0.weight"),
        ("vit", "conv_proj.weight"),
        ("densenet", "features.norm0.weight"),
        ("convnext", "features.1.0.layer_scale"),
        ("grouped", "convs.1.weight"),
    ],
)
def test_architectures_that_are_no_chains_are_refused(name, named):
    with pytest.raises(ConfigError, match=f"cannot make tokens of {re.escape(named)}"):
        read_layers(layout_of(ARCHITECTURES[name][0]))


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Linear(9, 6, bias=False), nn.Linear(6, 4)),
        (nn.Linear(9, 6), nn.Linear(6, 4, bias=False)),
        (nn.Linear(9, 6), nn.BatchNorm1d(6), nn.Linear(6, 5), nn.Linear(5, 4)),
        (nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.GroupNorm(1, 5), nn.Conv2d(5, 2, 1)),
        (nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(12, 2)),
    ],
)
def test_chains_need_no_bias_and_not_all_norms(layers):
    layout = Layout.of(nn.Sequential(*layers))
    places = token_sequence((layout,)).places[0]
    spans = layout.spans(buffers=False)
    assert sum(place.size for place in places) == sum(stop - start for start, stop in spans)


class Residual(nn.Module):
    """A chain by its layout alone: what a layer makes is added to what it was made of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(9, 6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(images.flatten(1)))
        return self.last(hidden + torch.relu(self.second(hidden)))


def own_chain() -> nn.Module:
    """A chain of a user's own."""
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.GELU())
    return nn.Sequential(*layers, nn.Linear(5, 3))


def test_a_residual_connection_that_the_layout_does_not_show_is_refused(tmp_path):
    config = PythonConfig("tests.codecs.test_neuron_layers:Residual")
    trust_code(config.target)
    zoo = write_random_zoo(tmp_path / "residual", config, shape=(1, 3, 3))
    read_layers(zoo.layout)
    with pytest.raises(ConfigError, match=r"tokens of first.weight: its units cannot.*second"):
        check_units(zoo, scaled=False)


def test_a_users_own_chain_is_traced(tmp_path):
    config = PythonConfig("tests.codecs.test_neuron_layers:own_chain")
    trust_code(config.target)
    zoo = write_random_zoo(tmp_path / "own", config, shape=(1, 4, 4))
    check_units(zoo, scaled=False)
    with pytest.raises(ConfigError, match=r"codec.scale: the units of 3.weight cannot be scaled"):
        check_units(zoo, scaled=True)
    check_units(
        write_random_zoo(tmp_path / "vgg", VGGConfig(width=2), shape=(3, 32, 32), count=1), False
    )


def test_architectures_that_differ_in_more_than_widths_are_refused():
    def refused(first, second):
        with pytest.raises(ConfigError, match="cannot take networks of layouts") as error:
            token_sequence((layout_of(first), layout_of(second)))
        return str(error.value)

    mlp = MLPConfig((9, 5, 3))
    assert "1 and 2 hidden layers" in refused(mlp, MLPConfig((9, 5, 5, 3)))
    assert "3 and 4 classes" in refused(mlp, MLPConfig((9, 5, 4)))
    assert "layers.0.weight [5, 9] with 1 tensors beside it and layers.0.weight [6, 8]" in refused(
        mlp, MLPConfig((8, 6, 3))
    )
    cnn = CNNConfig((3, 4), (1, 8, 8))
    assert "convs.0.weight" in refused(cnn, CNNConfig((3, 4), (1, 8, 8), kernels=(5, 3)))
    assert "norms that differ" in refused(cnn, CNNConfig((3, 4), (1, 8, 8), norm="batch"))
    assert "linears.0.weight" in refused(cnn, CNNConfig((3, 4), (1, 8, 8), head="average"))
