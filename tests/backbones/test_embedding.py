"""Conditions of backbones: NaN stands for none, and conditions change nothing else."""

import math

import pytest
import torch

from dwf.backbones.config import (
    PublishedMLPConfig,
    ResidualMLPConfig,
    TransformerConfig,
    build_backbone,
)
from dwf.backbones.shape import Shape

SECTIONS = ((4, 3), (1, 2))
CONFIGS = [
    (ResidualMLPConfig(width=16, depth=2, time_features=8), None),
    (TransformerConfig(width=16, heads=2, depth=2), SECTIONS),
]


def backbone(config, sections, told=(1,), spread=0.3):
    torch.manual_seed(0)
    module = build_backbone(config, Shape(14, sections), told=told)
    for parameter in module.parameters():
        if spread:
            torch.nn.init.normal_(parameter, std=spread)
    return module


@pytest.mark.parametrize(("config", "sections"), CONFIGS)
def test_nan_is_no_condition_whatever_stands_beside_it(config, sections):
    module, x, t = backbone(config, sections), torch.randn(4, 14), torch.rand(4)
    mixed = module(x, t, torch.tensor([[math.nan], [0.5], [math.nan], [-3.0]]))
    without = module(x, t)
    torch.testing.assert_close(mixed[[0, 2]], without[[0, 2]])
    assert (mixed - without)[[1, 3]].abs().amax(1).min() > 1e-3
    for i, value in ((1, 0.5), (3, -3.0)):  # one condition of all is that of each
        torch.testing.assert_close(module(x, t, torch.tensor([[value]]))[i], mixed[i])


@pytest.mark.parametrize(("config", "sections"), CONFIGS)
def test_conditions_and_their_lack_are_learnt(config, sections):
    module = backbone(config, sections, spread=0)
    x, t, wanted = torch.randn(32, 14), torch.rand(32), torch.randn(32, 14)
    condition = torch.randn(32, 1)
    condition[::4] = math.nan
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(4):  # the zeroed layers let gradients through one step after another
        optimizer.zero_grad()
        (module(x, t, condition) - wanted).square().mean().backward()
        optimizer.step()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients.values())


@pytest.mark.parametrize(("config", "sections"), CONFIGS)
def test_without_conditions_nothing_is_added_and_with_them_nothing_else_changes(config, sections):
    plain, told = (backbone(config, sections, each, spread=0).state_dict() for each in ((), (1,)))
    assert all(name.startswith("embed_condition.") for name in set(told) - set(plain))
    assert len(told) == len(plain) + 5
    assert all(torch.equal(told[name], tensor) for name, tensor in plain.items())


@pytest.mark.parametrize(("config", "sections"), CONFIGS)
def test_each_of_several_conditions_has_its_own_vectors(config, sections):
    """Shares of categories mix the vectors of these: told by hand, what blocks hear is a sum."""
    module = backbone(config, sections, (1, 3))
    embed = module.embed_condition
    number, table = embed.known
    told = torch.tensor([[0.5, 0, 1, 0], [math.nan, 0.25, 0, 0.75], [0.5, *[math.nan] * 3]])
    wanted = [
        number(torch.tensor([[0.5]]))[0] + table.weight[:, 1],
        embed.none_CT[0] + 0.25 * table.weight[:, 0] + 0.75 * table.weight[:, 2],
        number(torch.tensor([[0.5]]))[0] + embed.none_CT[1],
    ]
    torch.testing.assert_close(embed(told), torch.stack(wanted))
    x, t = torch.randn(3, 14), torch.rand(3)
    nothing = module(x, t, torch.full((1, 4), math.nan))
    torch.testing.assert_close(module(x, t), nothing)
    assert (module(x, t, told) - nothing).abs().amax(1).min() > 1e-3


def test_the_published_network_takes_a_category_as_one_number():
    """Its layer over [x, time, condition] is computed as one, of the joined vector."""
    module = build_backbone(PublishedMLPConfig(16, time_features=4), Shape(14), told=(3, 1))
    torch.nn.init.normal_(module.layers[-1].weight)
    x, t = torch.randn(4, 14), torch.rand(4)
    told = torch.tensor([[0, 0, 1, 0.3], [0.5, 0.5, 0, -1], [*[math.nan] * 3, 0], [1, 0, 0, 2.0]])
    numbers = torch.tensor([[2, 0.3], [0.5, -1], [-1, 0], [0, 2]])
    halves = module.enter.weight, module.enter_time.weight, module.enter_condition.weight
    joined = torch.cat([x, module.embed_time(t[:, None]), module.embed_condition(numbers)], 1)
    entered = joined @ torch.cat(halves, 1).T + module.enter.bias
    torch.testing.assert_close(module.eval()(x, t, told), module.layers(entered))
    torch.testing.assert_close(module(x, t), module(x, t, torch.full((1, 4), math.nan)))
    assert (14 + 4 + 4) ** -0.5 >= torch.cat(halves, 1).abs().max() > 0.9 * (14 + 4 + 4) ** -0.5
