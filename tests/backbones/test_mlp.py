"""Perceptrons of flows against the published counts of parameters and the published first layer."""

import pytest
import torch

from dwf.backbones.config import (
    BlockMLPConfig,
    PublishedMLPConfig,
    ResidualMLPConfig,
    build_backbone,
)
from dwf.backbones.shape import Shape
from dwf.errors import ConfigError
from dwf.settings import build

CONFIGS = [
    PublishedMLPConfig(hidden=16, time_features=8),
    ResidualMLPConfig(width=16, depth=2, time_features=8, dropout=0.2),
]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("num_features", "hidden", "time_features", "published"),
    [
        (26_506, 512, 64, 27.5e6),
        (118_282, 512, 64, 121.5e6),
        (99, 512, 64, 0.40e6),
        (99, 1024, 64, 1.33e6),
    ],
)
def test_published_sizes(num_features, hidden, time_features, published):
    config = PublishedMLPConfig(hidden=hidden, time_features=time_features)
    with torch.device("meta"):
        module = build_backbone(config, Shape(num_features))
    h, t, d = hidden, time_features, num_features
    by_hand = (2 * t + t * t + t) + ((d + t) * h + h + 2 * h)
    by_hand += (h * h // 2 + h // 2 + h) + (h // 2 * h + h + 2 * h) + (h * d + d)
    assert count(module) == by_hand
    assert count(module) == pytest.approx(published, rel=0.015)


def test_vae_diffusions_denoiser_has_its_published_size_and_arithmetic():
    """0.48 million parameters of 32 latents; each block as the two formulas of its docstring."""
    torch.manual_seed(0)
    module = build_backbone(BlockMLPConfig(), Shape(32))
    time, width = 128, 256
    by_hand = 2 * (time * time + time) + 3 * (time * width + width)
    by_hand += (32 * width + width) + 5 * (width * width + width) + (width * 32 + 32)
    assert count(module) == by_hand == 477_728

    gelu = torch.nn.functional.gelu
    x, t = torch.randn(7, 32), torch.rand(7)
    embedded = module.embed_time[3](gelu(module.embed_time[1](module.embed_time[0](t))))
    hidden = x
    for block, of_time in zip(module.blocks, module.times, strict=True):
        hidden = gelu(block[2](gelu(block[0](hidden)))) + gelu(of_time[0](embedded))
    torch.testing.assert_close(module(x, t), module.leave(hidden))


def test_split_entrance_is_the_published_joined_layer():
    torch.manual_seed(0)
    module = build_backbone(PublishedMLPConfig(hidden=16, time_features=8), Shape(5)).eval()
    torch.nn.init.normal_(module.layers[-1].weight)
    joined = torch.nn.Linear(5 + 8, 16)
    joined.weight.data = torch.cat([module.enter.weight, module.enter_time.weight], dim=1).data
    joined.bias.data = module.enter.bias.data
    x, t = torch.randn(7, 5), torch.rand(7)
    published = torch.nn.Sequential(joined, *module.layers)
    wanted = published(torch.cat([x, module.embed_time(t[:, None])], dim=1))
    torch.testing.assert_close(module(x, t), wanted)


@pytest.mark.parametrize("config", CONFIGS)
def test_begins_at_zero_and_every_weight_learns(config):
    torch.manual_seed(0)
    module = build_backbone(config, Shape(5))
    x, t, wanted = torch.randn(32, 5), torch.rand(32), torch.randn(32, 5)
    assert torch.equal(module(x, t), torch.zeros(32, 5))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):  # the zeroed layers let gradients through one step after another
        optimizer.zero_grad()
        (module(x, t) - wanted).square().mean().backward()
        optimizer.step()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("config", CONFIGS)
def test_one_time_for_all_is_that_time_for_each(config):
    torch.manual_seed(0)
    module = build_backbone(config, Shape(5)).eval()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = torch.randn(7, 5)
    torch.testing.assert_close(module(x, torch.tensor([0.3])), module(x, torch.full((7,), 0.3)))
    assert not torch.allclose(module(x, torch.tensor([0.3])), module(x, torch.tensor([0.31])))


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="time_features = 7 must be even"):
        build(ResidualMLPConfig, {"time_features": 7}, source="flow.yaml")
    with pytest.raises(ConfigError, match="hidden = 1: allowed is at least 2"):
        build(PublishedMLPConfig, {"hidden": 1}, source="flow.yaml")
