"""The denoisers of p-diff against their published counts of parameters and a loop over stages."""

import pytest
import torch

from dwf.backbones.config import Conv1dConfig, build_backbone
from dwf.backbones.shape import Shape
from dwf.errors import ConfigError
from dwf.settings import build

FIRST = Conv1dConfig(kernel=3, stage="double")
SMALL = Conv1dConfig(channels=(4, 8, 16), kernel=3, time_features=8, time_width=8)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_published_sizes():
    second = build_backbone(Conv1dConfig(), Shape(128))
    assert count(second) == 2_462_977
    # Of the first version without its table of 1,000 times, 12 numbers each: 2.36 M with it.
    first = build_backbone(FIRST, Shape(12))
    assert count(first) - count(first.embed_time) == 2_362_273 - 12_000


def test_a_stage_hears_of_time_and_of_the_way_down():
    """The published order of layers, written out."""
    torch.manual_seed(0)
    module = build_backbone(SMALL, Shape(10)).eval()
    x, t = torch.randn(3, 10), torch.rand(3)
    time = module.embed_time(t)[:, None]
    one, two, three, four, five, six = module.stages
    first = one(x[:, None] + time)
    second = two(first + time)
    up = four(three(second + time) + time)
    wanted = six(five(up + second + time) + first + time)[:, 0]
    torch.testing.assert_close(module(x, t), wanted)


@pytest.mark.parametrize("config", [SMALL, Conv1dConfig((4, 8), 3, "double", 8, 8)])
@pytest.mark.parametrize("size", [7, 12])
def test_every_weight_learns_and_one_time_for_all_is_that_of_each(config, size):
    torch.manual_seed(0)
    module, x = build_backbone(config, Shape(size), told=(1,)), torch.randn(6, size)
    module(
        x, torch.rand(6), torch.tensor([0.5, 1, float("nan"), 2, 3, 4]).unsqueeze(1)
    ).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    module.eval()
    torch.testing.assert_close(module(x, torch.tensor([0.3])), module(x, torch.full((6,), 0.3)))
    assert not torch.allclose(module(x, torch.tensor([0.3])), module(x, torch.tensor([0.9])))


@pytest.mark.parametrize("config", [SMALL, Conv1dConfig((4, 8), 3, "double", 8, 8)])
def test_it_sees_how_large_the_noise_is_and_no_other_vector(config):
    """Two faults of the published codes: scale is normed away, and batches are mixed."""
    torch.manual_seed(0)
    module = build_backbone(config, Shape(10))
    x, t = torch.randn(5, 10), torch.rand(5)
    module(x, t)  # running statistics
    module.eval()
    out = module(x, t)
    assert not torch.allclose(module(50 * x, t), out, rtol=0.1)
    for i in range(5):
        torch.testing.assert_close(module(x[i : i + 1], t[i : i + 1])[0], out[i])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": [8]}, r"channels = \[8\]: two stages or more"),
        ({"kernel": 4}, "kernel = 4 must be odd"),
        ({"time_width": 7}, "time_width = 7 must be even"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(Conv1dConfig, settings, source="flow.yaml")


def test_vectors_of_one_number_are_refused_by_stages_that_norm():
    with pytest.raises(ConfigError, match=r"'double' norms each vector.*codes have 1 number"):
        build_backbone(FIRST, Shape(1))
