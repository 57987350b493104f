"""Tokens against their numbers read out of the tensors by name, and orders found by brute force."""

import itertools

import numpy as np
import pytest
import torch

from dwf.align.symmetry import symmetry_of
from dwf.networks.config import CifarResNetConfig, CNNConfig, DenseNetConfig, MLPConfig
from dwf.networks.functional import build_network
from dwf.predictors.unit_tokens import quantiles_of, tokenise
from dwf.zoo.layout import Layout

SIZES = {"quantiles": 5, "max_tokens": 10_000}


def tokens_for(config, shape, columns="ordered", kind="neuron"):
    network = build_network(config)
    layout = Layout.of(network)
    groups = symmetry_of(network, layout, input_shape=shape)
    return layout, tokenise(layout, groups, kind=kind, columns=columns, **SIZES)


def random_rows(layout, count=3):
    return torch.randn(count, layout.size, generator=torch.Generator().manual_seed(0))


def test_a_units_token_is_its_incoming_weights_and_what_is_its_own():
    config = CNNConfig(channels=(3, 4), input=(1, 8, 8), norm="batch", hidden=(5,))
    layout, tokens = tokens_for(config, (1, 8, 8))
    weights = random_rows(layout)
    state = layout.unflatten(weights)
    values = list(tokens.values(weights))
    names = [entry.name for entry in layout.entries if len(entry.shape) > 1]
    assert len(values) == len(names) == 4
    assert tokens.num_tokens == 3 + 4 + 5 + 10
    own = {  # of the first layers: bias, then the norm behind it
        name.rpartition(".")[0]: [n for n in state if n.startswith(name.rpartition(".")[0])]
        for name in names
    }
    assert len(own) == 4
    for name, layer, values_NUW in zip(names, tokens.layers, values, strict=True):
        incoming = state[name].flatten(2)
        expected = incoming * incoming.shape[2] ** 0.5
        torch.testing.assert_close(values_NUW[..., : layer.fixed], expected)
    one_each = {e.name for e in layout.entries if len(e.shape) == 1}
    gathered = np.concatenate([layer.index_UC.reshape(-1) for layer in tokens.layers])
    assert sorted(gathered.tolist()) == list(range(layout.size)), "each number once"
    assert sum(layer.own for layer in tokens.layers) == len(one_each)
    bias = state[names[-1].replace("weight", "bias")]
    torch.testing.assert_close(values[-1][..., -1], bias)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (CifarResNetConfig(depth=8, width=4), (3, 32, 32)),
        (DenseNetConfig(blocks=(2, 2), growth=4), (3, 32, 32)),
    ],
    ids=["resnet_cifar", "densenet"],
)
def test_every_number_is_in_one_token(config, shape):
    layout, tokens = tokens_for(config, shape, columns="sorted")
    gathered = np.concatenate([layer.index_UC.reshape(-1) for layer in tokens.layers])
    assert sorted(gathered.tolist()) == list(range(layout.size))


def test_sets_are_the_weights_from_units_of_one_group():
    layout, tokens = tokens_for(MLPConfig((4, 3, 2)), (4,), columns="sorted")
    weights = random_rows(layout)
    first, last = tokens.values(weights)
    state = layout.unflatten(weights)
    torch.testing.assert_close(first[..., :4], state["layers.0.weight"] * 2)  # inputs stay
    expected = torch.quantile(state["layers.1.weight"], torch.linspace(0, 1, 5), dim=2)
    torch.testing.assert_close(last[..., :5], expected.movedim(0, 2) * 3**0.5)
    for order in itertools.permutations(range(3)):
        moved = state["layers.1.weight"][..., list(order)]
        changed = weights.clone()
        layout.unflatten(changed)["layers.1.weight"].copy_(moved)
        assert torch.equal(list(tokens.values(changed))[1], last)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("num", [1, 3, 5])
def test_quantiles_are_torchs(size, num):
    numbers = random_rows_of(size).sort(-1).values
    at = torch.linspace(0, 1, num, dtype=torch.float64) if num > 1 else torch.tensor([0.5]).double()
    expected = torch.quantile(numbers, at, dim=-1).movedim(0, -1)
    torch.testing.assert_close(quantiles_of(numbers, num), expected)


def random_rows_of(size):
    return torch.randn(6, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_chunks_are_the_flat_network_and_tensors_their_statistics():
    config = MLPConfig((9, 8, 3))
    layout, chunks = tokens_for(config, (9,), kind="global")
    weights = random_rows(layout)
    (values,) = chunks.values(weights)
    assert values.shape == (3, 2, 64) and layout.size == 107
    assert torch.equal(values.flatten(1)[:, :107], weights)
    assert not values.flatten(1)[:, 107:].any()
    layout, tensors = tokens_for(config, (9,), kind="layer", columns="sorted")
    for (name, tensor), values_NUW in zip(
        layout.unflatten(weights).items(), tensors.values(weights), strict=True
    ):
        flat = tensor.flatten(1)
        expected = [flat.mean(1), flat.std(1, correction=0), flat.amin(1), flat.amax(1)]
        torch.testing.assert_close(values_NUW[:, 0, :4], torch.stack(expected, 1), msg=name)
        quantiles = torch.quantile(flat, torch.linspace(0, 1, 60), dim=1).T
        torch.testing.assert_close(values_NUW[:, 0, 4:], quantiles, rtol=1e-5, atol=1e-5)
