"""Balanced units: the function stays, the norms meet, and one scale is left."""

import numpy as np
import pytest
import torch

from dwf.align.canonical import balance
from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.align.symmetry import symmetry_of
from dwf.errors import ConfigError
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout

WIDTHS = [(6, 5, 3), (6, 5, 4, 7, 3)]


def random_networks(widths, count=4, seed=0):
    """(module, layout, groups, weights_ND): float64 networks whose tensors differ in size."""
    network = build_network(MLPConfig(widths)).double()
    layout = Layout.of(network)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(count, layout.size, generator=generator, dtype=torch.float64)
    for i, tensor in enumerate(layout.unflatten(weights).values()):
        tensor.mul_(3.0 ** (i % 3))
    return network, layout, symmetry_of(network, layout, "balanced"), weights


def outputs(network, layout, weights):
    inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state = layout.unflatten(weights)
    return torch.func.vmap(lambda s: torch.func.functional_call(network, s, inputs))(state)


def unit_norms(layout, weights, layer, unit):
    state = layout.unflatten(weights)
    incoming = torch.cat(
        [state[f"layers.{layer}.weight"][:, unit], state[f"layers.{layer}.bias"][:, [unit]]], 1
    )
    return incoming.norm(dim=1), state[f"layers.{layer + 1}.weight"][:, :, unit].norm(dim=1)


def rescaled(layout, weights, factors):
    weights = weights.clone()
    state = layout.unflatten(weights)
    for layer, factor in enumerate(factors):
        state[f"layers.{layer}.weight"].mul_(factor[:, None])
        state[f"layers.{layer}.bias"].mul_(factor)
        state[f"layers.{layer + 1}.weight"].div_(factor)
    return weights


def random_factors(widths, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(w, generator=generator, dtype=torch.float64) * 5 + 0.1 for w in widths[1:-1]]


@pytest.mark.parametrize("widths", WIDTHS)
def test_function_stays_and_norms_meet(widths):
    network, layout, groups, weights = random_networks(widths)
    before = weights.clone()
    balanced = balance(weights, layout, groups)
    assert torch.equal(weights, before)
    torch.testing.assert_close(
        outputs(network, layout, balanced), outputs(network, layout, weights), rtol=1e-10, atol=1e-9
    )
    for layer, width in enumerate(widths[1:-1]):
        for unit in range(width):
            incoming, outgoing = unit_norms(layout, balanced, layer, unit)
            torch.testing.assert_close(incoming, outgoing, rtol=1e-9, atol=0)


@pytest.mark.parametrize("widths", WIDTHS)
def test_every_scale_of_a_network_comes_to_the_same_least_one(widths):
    network, layout, groups, weights = random_networks(widths)
    other = rescaled(layout, weights, random_factors(widths))
    torch.testing.assert_close(outputs(network, layout, other), outputs(network, layout, weights))
    balanced = balance(weights, layout, groups)
    torch.testing.assert_close(balance(other, layout, groups), balanced, rtol=1e-8, atol=1e-9)
    nearby = [1 + 0.01 * (f - f.mean()) for f in random_factors(widths, seed=3)]
    moved = rescaled(layout, balanced, nearby)
    assert (moved.square().sum(1) > balanced.square().sum(1)).all()


@pytest.mark.parametrize("widths", WIDTHS)
def test_units_of_zeros_keep_their_scale(widths):
    network, layout, groups, weights = random_networks(widths)
    state = layout.unflatten(weights)
    state["layers.0.weight"][0, 1] = state["layers.0.bias"][0, 1] = 0.0  # nothing comes in
    state["layers.1.weight"][1, :, 2] = 0.0  # nothing goes out
    state["layers.0.weight"][2] = state["layers.0.bias"][2] = 0.0  # a whole layer
    balanced = balance(weights, layout, groups)
    assert balanced.isfinite().all()
    kept = layout.unflatten(balanced)
    assert torch.equal(kept["layers.0.weight"][1, 2], state["layers.0.weight"][1, 2])
    torch.testing.assert_close(
        outputs(network, layout, balanced), outputs(network, layout, weights), rtol=1e-10, atol=1e-9
    )


def test_a_network_does_not_depend_on_the_others():
    _, layout, groups, weights = random_networks(WIDTHS[1], count=6)
    weights = weights.float()
    balanced = balance(weights, layout, groups)
    assert balanced.dtype == torch.float32
    for n in range(6):
        assert torch.equal(balance(weights[n : n + 1], layout, groups)[0], balanced[n])
    torch.testing.assert_close(balance(balanced, layout, groups), balanced)


@pytest.mark.parametrize("activation", ["gelu", "tanh"])
def test_only_relu_units_can_be_rescaled(activation):
    network = build_network(MLPConfig((5, 4, 2), activation))
    layout = Layout.of(network)
    with pytest.raises(ConfigError, match=rf"'balanced'.*{activation}.*set scale to none"):
        symmetry_of(network, layout, "balanced")
    weights = torch.randn(2, layout.size)
    assert balance(weights, layout, symmetry_of(network, layout)) is weights


def test_an_aligned_zoo_is_balanced_and_says_so(make_zoo, tmp_path):
    zoo = make_zoo(count=8, widths=(64, 6, 5, 10))
    config = AlignConfig("small", scale="balanced", reference="iterated_mean", num_pairs=3)
    aligned = align_zoo(config, tmp_path, "aligned")
    assert aligned.facts["provenance"]["scale"] == "balanced"
    weights = torch.from_numpy(aligned.read()).double()
    for layer, width in enumerate((6, 5)):
        for unit in range(width):
            torch.testing.assert_close(*unit_norms(zoo.layout, weights, layer, unit), rtol=1e-5,
                                       atol=0)  # fmt: skip
    images = torch.rand(9, 64)
    network = zoo.build_network()
    before, after = (
        network.run_stacked(zoo.layout.unflatten(torch.from_numpy(z.read())), images)
        for z in (zoo, aligned)
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    assert np.array_equal(zoo.columns["split"], aligned.columns["split"])
