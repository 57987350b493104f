"""Balanced units: the function stays, the norms meet, and one scale is left."""

import numpy as np
import pytest
import torch

from dwf.align.canonical import balance, norm_orders, transport_orders
from dwf.align.config import AlignConfig
from dwf.align.groups import Group, Member, permute, random_orders
from dwf.align.stage import align_zoo
from dwf.align.symmetry import symmetry_of
from dwf.errors import ConfigError
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Entry, Layout
from tests.align.by_hand import grouped_net, small_resnet, small_vit
from tests.align.test_architectures import randomised

WIDTHS = [(6, 5, 3), (6, 5, 4, 7, 3)]


def random_networks(widths, count=4, seed=0):
    """(module, layout, groups, weights_ND): float64 networks whose tensors differ in size."""
    network = build_network(MLPConfig(widths)).double()
    layout = Layout.of(network)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(count, layout.size, generator=generator, dtype=torch.float64)
    for i, tensor in enumerate(layout.unflatten(weights).values()):
        tensor.mul_(3.0 ** (i % 3))
    return (
        network,
        layout,
        symmetry_of(network, layout, input_shape=widths[:1], scale="balanced"),
        weights,
    )


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
    balanced = balance(weights, layout, groups=groups)
    assert torch.equal(weights, before)
    torch.testing.assert_close(
        outputs(network, layout, weights=balanced),
        outputs(network, layout, weights=weights),
        rtol=1e-10,
        atol=1e-9,
    )
    for layer, width in enumerate(widths[1:-1]):
        for unit in range(width):
            incoming, outgoing = unit_norms(layout, balanced, layer=layer, unit=unit)
            torch.testing.assert_close(incoming, outgoing, rtol=1e-9, atol=0)


@pytest.mark.parametrize("widths", WIDTHS)
def test_every_scale_of_a_network_comes_to_the_same_least_one(widths):
    network, layout, groups, weights = random_networks(widths)
    other = rescaled(layout, weights, factors=random_factors(widths))
    torch.testing.assert_close(
        outputs(network, layout, weights=other), outputs(network, layout, weights=weights)
    )
    balanced = balance(weights, layout, groups=groups)
    torch.testing.assert_close(
        balance(other, layout, groups=groups), balanced, rtol=1e-8, atol=1e-9
    )
    nearby = [1 + 0.01 * (f - f.mean()) for f in random_factors(widths, seed=3)]
    moved = rescaled(layout, balanced, factors=nearby)
    assert (moved.square().sum(1) > balanced.square().sum(1)).all()


@pytest.mark.parametrize("widths", WIDTHS)
def test_units_of_zeros_keep_their_scale(widths):
    network, layout, groups, weights = random_networks(widths)
    state = layout.unflatten(weights)
    state["layers.0.weight"][0, 1] = state["layers.0.bias"][0, 1] = 0.0  # nothing comes in
    state["layers.1.weight"][1, :, 2] = 0.0  # nothing goes out
    state["layers.0.weight"][2] = state["layers.0.bias"][2] = 0.0  # a whole layer
    balanced = balance(weights, layout, groups=groups)
    assert balanced.isfinite().all()
    kept = layout.unflatten(balanced)
    assert torch.equal(kept["layers.0.weight"][1, 2], state["layers.0.weight"][1, 2])
    torch.testing.assert_close(
        outputs(network, layout, weights=balanced),
        outputs(network, layout, weights=weights),
        rtol=1e-10,
        atol=1e-9,
    )


def test_a_network_does_not_depend_on_the_others():
    _, layout, groups, weights = random_networks(WIDTHS[1], count=6)
    weights = weights.float()
    balanced = balance(weights, layout, groups=groups)
    assert balanced.dtype == torch.float32
    for n in range(6):
        assert torch.equal(balance(weights[n : n + 1], layout, groups=groups)[0], balanced[n])
    torch.testing.assert_close(balance(balanced, layout, groups=groups), balanced)


@pytest.mark.parametrize("activation", ["gelu", "tanh"])
def test_only_relu_units_can_be_rescaled(activation):
    network = build_network(MLPConfig((5, 4, 2), activation))
    layout = Layout.of(network)
    with pytest.raises(ConfigError, match=r"'balanced'.*set scale to none"):
        symmetry_of(network, layout, input_shape=(5,), scale="balanced")
    weights = torch.randn(2, layout.size)
    assert (
        balance(weights, layout, groups=symmetry_of(network, layout, input_shape=(5,))) is weights
    )


def test_an_aligned_zoo_is_balanced_and_says_so(make_zoo, tmp_path):
    zoo = make_zoo(count=8, widths=(64, 6, 5, 10))
    config = AlignConfig("small", scale="balanced", reference="iterated_mean", num_pairs=3)
    aligned = align_zoo(config, tmp_path, name="aligned")
    assert aligned.facts.aligned.scale == "balanced"
    weights = torch.from_numpy(aligned.read()).double()
    for layer, width in enumerate((6, 5)):
        for unit in range(width):
            norms = unit_norms(zoo.layout, weights, layer=layer, unit=unit)
            torch.testing.assert_close(*norms, rtol=1e-5, atol=0)
    images = torch.rand(9, 64)
    network = zoo.build_network()
    before, after = (
        network.run_stacked(zoo.layout.unflatten(torch.from_numpy(z.read())), images)
        for z in (zoo, aligned)
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    assert np.array_equal(zoo.columns["split"], aligned.columns["split"])


@pytest.mark.parametrize("make", [small_vit, small_resnet, grouped_net])
@pytest.mark.parametrize("of", [norm_orders, transport_orders])
def test_every_order_of_a_networks_units_comes_to_the_same_one(make, of):
    network, layout, groups = make()
    weights_ND = torch.stack([randomised(network, layout, seed=seed) for seed in range(3)])
    canonical_ND = permute(
        weights_ND, layout, groups=groups, orders=of(weights_ND, layout, groups=groups)
    )
    assert not torch.equal(canonical_ND, weights_ND)
    shuffled_ND = permute(
        weights_ND, layout, groups=groups, orders=random_orders(groups, 3, seed=5)
    )
    again_ND = permute(
        shuffled_ND, layout, groups=groups, orders=of(shuffled_ND, layout, groups=groups)
    )
    assert torch.equal(again_ND, canonical_ND)


def test_units_are_sorted_by_their_norms():
    network, layout, groups = small_resnet()
    weights_ND = torch.stack([randomised(network, layout, seed=seed) for seed in range(3)])
    orders = norm_orders(weights_ND, layout, groups=groups)
    sorted_ND = permute(weights_ND, layout, groups=groups, orders=orders)
    state = layout.unflatten(sorted_ND)
    for unit in range(3):  # the inner units of the first block
        norms = [
            sum(
                (state[f"layer1.0.{name}"][:, u].square().sum().item())
                for name in ("bn1.weight", "bn1.bias")
            )
            + state["layer1.0.conv1.weight"][:, u].square().sum().item()
            + state["layer1.0.conv2.weight"][:, :, u].square().sum().item()
            for u in (unit, unit + 1)
        ]
        assert norms[0] >= norms[1]


def test_residual_networks_are_balanced_too():
    """Traced groups of a ResNet: the function stays, and makers weigh what takers weigh."""
    network, layout, _ = small_resnet()
    network = network.double()
    groups = [
        g
        for g in symmetry_of(network, layout, input_shape=(3, 16, 16), scale="balanced")
        if g.scales
    ]
    weights_ND = torch.stack([randomised(network, layout, seed=seed) for seed in range(2)]).double()
    balanced_ND = balance(weights_ND, layout, groups=groups)
    assert not torch.equal(balanced_ND, weights_ND)
    inputs = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    for rows in zip(weights_ND, balanced_ND, strict=True):
        before, after = (
            torch.func.functional_call(network, layout.unflatten(row), (inputs,)) for row in rows
        )
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    state = layout.unflatten(balanced_ND)
    for group in groups:
        sums = {1: 0.0, -1: 0.0}
        for member in group.members:
            if member.power:
                assert member.inner == member.outer == 1 and member.start == 0
                squared = state[member.name].square().movedim(member.axis + 1, 1)
                sums[member.power] += squared.reshape(2, group.size, -1).sum(2)
        torch.testing.assert_close(sums[1], sums[-1], rtol=1e-8, atol=0)


def test_a_stream_that_a_layer_leaves_and_enters_is_balanced():
    """A weight d -> d within a homogeneous stream: both its ends scale at once."""
    entries = (
        Entry("in", (4, 3), offset=0, role="weight"),
        Entry("square", (4, 4), offset=12, role="weight"),
        Entry("out", (2, 4), offset=28, role="weight"),
    )
    layout = Layout(entries)
    members = (
        Member("in", 0, power=1),
        Member("square", 0, power=1),
        Member("square", 1, power=-1),
        Member("out", 1, power=-1),
    )
    groups = (Group(4, members, kind="stream", scales=True),)
    weights_ND = torch.randn(5, layout.size, dtype=torch.float64)
    balanced_ND = balance(weights_ND, layout, groups=groups)
    assert (balanced_ND.square().sum(1) < weights_ND.square().sum(1)).all()
    state, given = layout.unflatten(balanced_ND), layout.unflatten(weights_ND)
    inverse_NU = (state["out"] / given["out"])[:, 0]
    torch.testing.assert_close(state["in"], given["in"] / inverse_NU.unsqueeze(2))
    expected = given["square"] * inverse_NU.unsqueeze(1) / inverse_NU.unsqueeze(2)
    torch.testing.assert_close(state["square"], expected)
    makers = state["in"].square().sum(2) + state["square"].square().sum(2)
    takers = state["out"].square().sum(1) + state["square"].square().sum(1)
    torch.testing.assert_close(makers, takers, rtol=1e-8, atol=0)
