from dataclasses import replace

import pytest
import torch

from dwf.backbones.config import ResidualMLPConfig, TransformerConfig, build_backbone
from dwf.errors import ConfigError
from dwf.settings import build

SMALL = TransformerConfig(width=16, heads=2, depth=2, expansion=2)
GROUPS = ((5, 7), (4, 6), (1, 3))
SIZE = 5 * 7 + 4 * 6 + 3


def backbone(config=SMALL, spread=0.3):
    torch.manual_seed(0)
    module = build_backbone(config, SIZE, GROUPS)
    if spread:  # it begins at zero, and would be equivariant whatever it computes
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=spread)
    return module


def reordered(x, layer, order):
    layers = list(x.split([count * size for count, size in GROUPS], dim=1))
    layers[layer] = layers[layer].unflatten(1, GROUPS[layer])[:, order].flatten(1)
    return torch.cat(layers, 1)


@pytest.mark.parametrize("layer", [0, 1])
def test_permuted_units_give_the_permuted_velocity(layer):
    module = backbone().double()
    x, t = torch.randn(3, SIZE, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    order = torch.arange(GROUPS[layer][0]).roll(1)
    wanted = reordered(module(x, t), layer, order)
    torch.testing.assert_close(module(reordered(x, layer, order), t), wanted, rtol=0, atol=1e-12)
    assert (wanted - module(x, t)).abs().max() > 0.1


@pytest.mark.parametrize("layer", [0, 1])
def test_with_positions_the_order_of_the_tokens_counts(layer):
    module = backbone(replace(SMALL, positions=True)).double()
    x, t = torch.randn(3, SIZE, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    order = torch.arange(GROUPS[layer][0]).roll(1)
    moved = reordered(module(x, t), layer, order)
    assert (module(reordered(x, layer, order), t) - moved).abs().max() > 0.1
    # Tokens that take their positions with them are the same set again.
    start = sum(count for count, _ in GROUPS[:layer])
    places_UW = module.positions_TW.data[start : start + GROUPS[layer][0]]
    places_UW.copy_(places_UW[order].clone())
    torch.testing.assert_close(module(reordered(x, layer, order), t), moved, rtol=0, atol=1e-12)


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
        build_backbone(SMALL, SIZE)
    with pytest.raises(ConfigError, match=r"'residual_mlp' takes vectors.*sequences of 10 tokens"):
        build_backbone(ResidualMLPConfig(), SIZE, GROUPS)
    with pytest.raises(ConfigError, match="width = 20 must be a multiple of 2 x heads = 8"):
        build(TransformerConfig, {"width": 20}, "flow.yaml")
