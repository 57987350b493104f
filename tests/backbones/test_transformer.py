"""The transformer of flows: permuted tokens, permuted velocity; narrow networks against a twin."""

import math
from dataclasses import replace

import pytest
import torch

from dwf.backbones.config import ResidualMLPConfig, TransformerConfig, build_backbone
from dwf.backbones.shape import Shape
from dwf.errors import ConfigError
from dwf.settings import build

SMALL = TransformerConfig(width=16, heads=2, depth=2, expansion=2)
SECTIONS = ((5, 7), (4, 6), (1, 3))
SIZE = 5 * 7 + 4 * 6 + 3


def backbone(config=SMALL, spread=0.3, told=()):
    torch.manual_seed(0)
    module = build_backbone(config, Shape(SIZE, SECTIONS), told=told)
    if spread:  # it begins at zero, and would be equivariant whatever it computes
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=spread)
    return module


def reordered(x, layer, order):
    layers = list(x.split([count * size for count, size in SECTIONS], dim=1))
    layers[layer] = layers[layer].unflatten(1, SECTIONS[layer])[:, order].flatten(1)
    return torch.cat(layers, 1)


@pytest.mark.parametrize("layer", [0, 1])
def test_permuted_units_give_the_permuted_velocity(layer):
    module = backbone().double()
    x, t = torch.randn(3, SIZE, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    order = torch.arange(SECTIONS[layer][0]).roll(1)
    wanted = reordered(module(x, t), layer, order=order)
    torch.testing.assert_close(
        module(reordered(x, layer, order=order), t), wanted, rtol=0, atol=1e-12
    )
    assert (wanted - module(x, t)).abs().max() > 0.1


@pytest.mark.parametrize("layer", [0, 1])
def test_with_positions_the_order_of_the_tokens_counts(layer):
    module = backbone(replace(SMALL, positions=True)).double()
    x, t = torch.randn(3, SIZE, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    order = torch.arange(SECTIONS[layer][0]).roll(1)
    moved = reordered(module(x, t), layer, order=order)
    assert (module(reordered(x, layer, order=order), t) - moved).abs().max() > 0.1
    # Tokens that take their positions with them are the same set again.
    start = sum(count for count, _ in SECTIONS[:layer])
    places_UW = module.positions_TW.data[start : start + SECTIONS[layer][0]]
    places_UW.copy_(places_UW[order].clone())
    torch.testing.assert_close(
        module(reordered(x, layer, order=order), t), moved, rtol=0, atol=1e-12
    )


def test_positions_of_zero_are_none_and_change_nothing_else():
    plain, placed = backbone(spread=0), backbone(replace(SMALL, positions=True), spread=0)
    states = plain.state_dict(), placed.state_dict()
    assert set(states[1]) - set(states[0]) == {"positions_TW"}
    assert states[1]["positions_TW"].shape == (5 + 4 + 1, 16)
    assert all(torch.equal(states[1][name], tensor) for name, tensor in states[0].items())
    torch.manual_seed(1)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    placed.load_state_dict(plain.state_dict() | {"positions_TW": torch.zeros(10, 16)})
    x, t = torch.randn(3, SIZE), torch.rand(3)
    assert torch.equal(plain(x, t), placed(x, t)) and plain(x, t).abs().max() > 0.1


def test_units_hear_each_other_and_sequences_do_not():
    module = backbone()
    x, t = torch.randn(3, SIZE), torch.rand(3)
    jacobian = torch.autograd.functional.jacobian(lambda x: module(x, t), x)  # [3, K, 3, K]
    for a in range(3):
        for b in range(3):
            assert bool((jacobian[a, :, b] != 0).all()) == (a == b)


@pytest.mark.parametrize("positions", [False, True])
def test_begins_at_zero_and_every_weight_learns(positions):
    module = backbone(replace(SMALL, positions=positions), spread=0)
    x, t, wanted = torch.randn(32, SIZE), torch.rand(32), torch.randn(32, SIZE)
    assert torch.equal(module(x, t), torch.zeros(32, SIZE))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(4):  # the zeroed layers let gradients through one step after another
        optimizer.zero_grad()
        (module(x, t) - wanted).square().mean().backward()
        optimizer.step()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


def test_one_time_for_all_is_that_time_for_each():
    module, x = backbone(), torch.randn(7, SIZE)
    torch.testing.assert_close(module(x, torch.tensor([0.3])), module(x, torch.full((7,), 0.3)))
    assert not torch.allclose(module(x, torch.tensor([0.3])), module(x, torch.tensor([0.31])))


def test_codes_of_the_other_kind_are_refused():
    with pytest.raises(ConfigError, match=r"'transformer' takes tokens.*vectors of 62 numbers"):
        build_backbone(SMALL, Shape(SIZE))
    with pytest.raises(ConfigError, match=r"'residual_mlp' takes vectors.*sequences of 10 tokens"):
        build_backbone(ResidualMLPConfig(), Shape(SIZE, SECTIONS))
    with pytest.raises(ConfigError, match="width = 20 must be a multiple of 2 x heads = 8"):
        build(TransformerConfig, {"width": 20}, source="flow.yaml")


# Two architectures in one sequence: the second has 3 of 5 units of the first layer, and so 4 of the
# 6 numbers of each of its 2 of 4 units of the second, of which these are the first.
def narrow_mask():
    first, second = torch.zeros(5, 7), torch.zeros(4, 6)
    first[:3], second[:2, :4] = 1, 1
    return torch.cat([first.flatten(), second.flatten(), torch.ones(3)]).bool()


NARROW_SECTIONS = ((3, 7), (2, 4), (1, 3))


def narrow_twin(module, **changes):
    """The same transformer for the narrow network alone, from slices of its weights."""
    shape = Shape(sum(count * width for count, width in NARROW_SECTIONS), NARROW_SECTIONS)
    told = () if module.embed_condition is None else (1,)
    twin = build_backbone(replace(SMALL, **changes), shape, told=told).double()
    state = module.state_dict()
    for i, (_, width) in enumerate(NARROW_SECTIONS):
        state[f"enter.{i}.weight"] = state[f"enter.{i}.weight"][:, :width]
        state[f"leave.{i}.weight"] = state[f"leave.{i}.weight"][:width]
        state[f"leave.{i}.bias"] = state[f"leave.{i}.bias"][:width]
    if "positions_TW" in state:
        state["positions_TW"] = state["positions_TW"][[0, 1, 2, 5, 6, 9]]
    twin.load_state_dict(state)
    return twin


@pytest.mark.parametrize("changes", [{}, {"positions": True}])
def test_a_narrow_network_is_moved_as_by_a_transformer_of_its_own_size(changes):
    module = backbone(replace(SMALL, **changes), told=(1,)).double()
    x, t = torch.randn(3, SIZE, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    condition = torch.tensor([[0.5], [math.nan], [-1.0]], dtype=torch.float64)
    mask = narrow_mask()
    present = torch.stack([mask, torch.ones(SIZE, dtype=torch.bool), mask])  # beside a wide one
    found = module(x, t, condition, present)  # what x holds where nothing is plays no part
    rows = [0, 2]
    wanted = narrow_twin(module, **changes)(x[rows][:, mask], t[rows], condition[rows])
    torch.testing.assert_close(found[rows][:, mask], wanted, rtol=0, atol=1e-12)
    assert not found[rows][:, ~mask].any() and wanted.abs().min() > 0
    alone = module(x[1:2], t[1:2], condition[1:2])
    torch.testing.assert_close(found[1:2], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", [0, 1])
def test_permuted_units_of_a_narrow_network_give_its_permuted_velocity(layer):
    module = backbone(told=(1,)).double()
    x, t = torch.randn(3, SIZE, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    present = narrow_mask().expand(3, SIZE)
    condition = torch.randn(3, 1, dtype=torch.float64)
    count = NARROW_SECTIONS[layer][0]
    order = torch.cat([torch.arange(count).roll(1), torch.arange(count, SECTIONS[layer][0])])
    wanted = reordered(module(x, t, condition, present), layer, order=order)
    found = module(reordered(x, layer, order=order), t, condition, present)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert (wanted - module(x, t, condition, present)).abs().max() > 0.1


def test_gradients_of_narrow_networks_are_finite_and_absent_numbers_get_none():
    module, x = backbone(), torch.randn(2, SIZE, requires_grad=True)
    module(x, torch.rand(2), None, narrow_mask().expand(2, SIZE)).square().sum().backward()
    assert torch.equal(x.grad != 0, narrow_mask().expand(2, SIZE))
    assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


def test_last_exchangeable_is_a_set_behind_layers_that_are_not():
    config = replace(SMALL, positions=True, last_exchangeable=True)
    module = backbone(config).double()
    assert module.positions_TW.shape == (5, 16)
    assert config.exchangeable(SECTIONS) == (False, True, True)
    assert replace(config, last_exchangeable=False).exchangeable(SECTIONS) == (False, False, False)
    assert SMALL.exchangeable(SECTIONS) == (True, True, True)
    x, t = torch.randn(3, SIZE, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    deviations = []
    for layer in (0, 1):
        order = torch.arange(SECTIONS[layer][0]).roll(1)
        moved = reordered(module(x, t), layer, order=order)
        deviations.append((module(reordered(x, layer, order=order), t) - moved).abs().max().item())
    assert deviations[0] > 0.1 and deviations[1] < 1e-12
    with pytest.raises(
        ConfigError, match=r"last_exchangeable = true: no effect, as positions = false"
    ):
        build(TransformerConfig, {"last_exchangeable": True}, source="flow.yaml")


def test_bf16_on_a_cpu_is_float32_to_its_precision():
    module = backbone(spread=0.1)
    x, t = torch.randn(16, SIZE, generator=torch.manual_seed(0)), torch.rand(16)
    wanted = module(x, t)
    (slope,) = torch.autograd.grad(wanted.square().sum(), module.blocks[0].project.weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x, t)
        (near,) = torch.autograd.grad(found.float().square().sum(), module.blocks[0].project.weight)
    assert 0 < (found - wanted).norm() < 0.02 * wanted.norm()  # eight bits
    assert 0 < (near - slope).norm() < 0.05 * slope.norm()
