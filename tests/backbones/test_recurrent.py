"""The network of RPG: tokens hear of each other by prototypes alone; a token against a loop."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from dwf import extras
from dwf.backbones.config import RecurrentConfig, build_backbone
from dwf.backbones.shape import Shape
from dwf.errors import ConfigError

SECTIONS = ((5, 7), (4, 6), (1, 3))
SIZE = 5 * 7 + 4 * 6 + 3
EACH_TOKEN = [size for count, size in SECTIONS for _ in range(count)]
SMALL = RecurrentConfig(width=8, depth=2, state=4, channels=(4, 6), kernel=3, time_features=8)
each_trunk = pytest.mark.parametrize("trunk", ["mamba", "lstm"])


def backbone(trunk="mamba", told=()):
    torch.manual_seed(0)
    config = RecurrentConfig(**(vars(SMALL) | {"trunk": trunk}))
    module = build_backbone(config, Shape(SIZE, SECTIONS), told=told)
    for parameter in module.parameters():  # its output begins at zero
        nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def test_its_output_begins_at_zero():
    module = build_backbone(SMALL, Shape(SIZE, SECTIONS))
    assert not module(torch.randn(2, SIZE), torch.rand(2)).any()


@each_trunk
def test_a_token_is_answered_for_by_itself_given_its_prototype(trunk):
    """Against a loop over tokens that are never padded; tokens of the largest size are as these."""
    module, x, t = backbone(trunk), torch.randn(3, SIZE).double(), torch.rand(3).double()
    prototypes = module.lead(module.trunk(module._state(None)))[0]
    wanted = []
    for token, prototype in zip(x.split(EACH_TOKEN, 1), prototypes, strict=True):
        told = (prototype + module.embed_time(t)).unsqueeze(1)
        signal = functional.pad(token, (0, 7 - token.shape[1])).unsqueeze(1)
        for place, (enter, leave) in enumerate(pairwise((1, 4, 6, 1))):
            stage = module.stages[place]
            assert stage.weight.shape == (leave, enter, 3)
            signal = functional.elu(signal) if place else signal
            signal = functional.conv1d(signal + told, stage.weight, stage.bias, padding=1)
        wanted.append(signal[:, 0, : token.shape[1]])
    torch.testing.assert_close(module(x, t), torch.cat(wanted, 1), rtol=0, atol=1e-12)


@each_trunk
def test_a_token_does_not_hear_what_another_holds(trunk):
    module, x, t = backbone(trunk), torch.randn(1, SIZE).double(), torch.rand(1).double()
    moves = torch.autograd.functional.jacobian(lambda each: module(each, t), x)[0, :, 0]
    blocks = torch.block_diag(*(torch.ones(size, size) for size in EACH_TOKEN))
    assert not moves[blocks == 0].any()
    assert moves[blocks == 1].abs().gt(0).double().mean() > 0.5


@each_trunk
def test_what_it_is_told_reaches_every_token(trunk):
    """A state of 3 checkpoints: shares of each."""
    module, t = backbone(trunk, told=(3,)), torch.rand(2).double()
    x = torch.randn(1, SIZE).double().expand(2, -1)
    one, other = module(x, t[:1], torch.eye(3).double()[:2])
    assert all(
        (a - b).abs().max() > 1e-4
        for a, b in zip(one.split(EACH_TOKEN), other.split(EACH_TOKEN), strict=True)
    )


def test_the_trunk_is_mamba_s_recurrence():
    """The library's parallel scan against its recurrence, a token after the other."""
    module = backbone().float()
    x = torch.randn(2, 10, 8)
    mamba = module.trunk.layers
    caches = [(None, torch.zeros(2, 16, 3)) for _ in mamba.layers]
    steps = []
    for place in range(10):
        out, caches = mamba.step(x[:, place], caches)
        steps.append(out)
    torch.testing.assert_close(mamba(x), torch.stack(steps, 1), rtol=1e-4, atol=1e-4)


@each_trunk
def test_gradients_reach_every_parameter(trunk):
    module = backbone(trunk, told=(3,))
    told = torch.tensor([[1.0, 0, 0], [float("nan")] * 3]).double()
    module(torch.randn(2, SIZE).double(), torch.rand(2).double(), told).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_without_its_extra_a_mamba_is_refused(monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"backbone\.trunk = 'mamba' needs mambapy"):
        backbone()
    assert backbone("lstm")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 6}, "multiple of 4"),
        ({"channels": ()}, "one or more"),
        ({"kernel": 4}, "must be odd"),
        ({"time_features": 7}, "must be even"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        RecurrentConfig(**settings)
