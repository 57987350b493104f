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
from dwf.errors import ConfigError

SECTIONS = ((4, 3), (1, 2))
CONFIGS = [
    (ResidualMLPConfig(width=16, depth=2, time_features=8), None),
    (TransformerConfig(width=16, heads=2, depth=2), SECTIONS),
]


def backbone(config, sections, conditioned=True, spread=0.3):
    torch.manual_seed(0)
    module = build_backbone(config, Shape(14, sections), conditioned=conditioned)
    for parameter in module.parameters():
        if spread:
            torch.nn.init.normal_(parameter, std=spread)
    return module


@pytest.mark.parametrize(("config", "sections"), CONFIGS)
def test_nan_is_no_condition_whatever_stands_beside_it(config, sections):
    module, x, t = backbone(config, sections), torch.randn(4, 14), torch.rand(4)
    mixed = module(x, t, torch.tensor([math.nan, 0.5, math.nan, -3.0]))
    without = module(x, t)
    torch.testing.assert_close(mixed[[0, 2]], without[[0, 2]])
    assert (mixed - without)[[1, 3]].abs().amax(1).min() > 1e-3
    for i, value in ((1, 0.5), (3, -3.0)):  # one condition of all is that of each
        torch.testing.assert_close(module(x, t, torch.tensor([value]))[i], mixed[i])


@pytest.mark.parametrize(("config", "sections"), CONFIGS)
def test_conditions_and_their_lack_are_learnt(config, sections):
    module = backbone(config, sections, spread=0)
    x, t, wanted = torch.randn(32, 14), torch.rand(32), torch.randn(32, 14)
    condition = torch.randn(32)
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
    plain, told = (
        backbone(config, sections, conditioned=each, spread=0).state_dict()
        for each in (False, True)
    )
    assert all(name.startswith("embed_condition.") for name in set(told) - set(plain))
    assert len(told) == len(plain) + 5
    assert all(torch.equal(told[name], tensor) for name, tensor in plain.items())


def test_the_published_network_takes_no_condition():
    with pytest.raises(ConfigError, match=r"'mlp', as published, takes no condition: choose"):
        build_backbone(PublishedMLPConfig(), Shape(14), conditioned=True)
