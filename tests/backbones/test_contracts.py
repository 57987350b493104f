"""What backbones declare of themselves, against what they do; and a backbone of one's own."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dwf.backbones.config import (
    BACKBONES,
    BackboneConfig,
    BlockMLPConfig,
    Conv1dConfig,
    LongTransformerConfig,
    NeuralGraphConfig,
    PublishedMLPConfig,
    RecurrentConfig,
    ResidualMLPConfig,
    TokenBackboneSettings,
    TransformerConfig,
    build_backbone,
)
from dwf.backbones.embedding import ConditionEmbedding
from dwf.backbones.linear import Linear
from dwf.backbones.shape import Shape
from dwf.backbones.token_backbone import TokenBackbone
from dwf.errors import ConfigError
from dwf.training.memory import saved_bytes

# Tokens of an MLP 3-5-4-2.
TOKENS = Shape(5 * 4 + 4 * 8 + 2, ((5, 4), (4, 5 + 1 + 2), (1, 2)))
VECTORS = Shape(54)
CONFIGS = [
    PublishedMLPConfig(hidden=64),
    ResidualMLPConfig(width=32, depth=2, time_features=16),
    BlockMLPConfig(width=32, depth=2, time_features=16),
    Conv1dConfig(channels=(4, 8, 16), kernel=3, time_features=16, time_width=16),
    Conv1dConfig(channels=(4, 8), kernel=3, stage="double", time_features=16, time_width=16),
    TransformerConfig(width=16, heads=2, depth=2),
    TransformerConfig(width=16, heads=2, depth=2, positions=True),
    TransformerConfig(width=16, heads=2, depth=2, positions=True, last_exchangeable=True),
    LongTransformerConfig(width=16, heads=2, depth=2, window=4),
    LongTransformerConfig(width=16, heads=2, depth=2, window=10, global_tokens=0),
    NeuralGraphConfig(width=16, depth=2),
    RecurrentConfig(width=16, depth=1, channels=(16, 16), kernel=3, time_features=16),
    RecurrentConfig(trunk="lstm", width=16, depth=1, channels=(16, 16), kernel=3, time_features=16),
]
each_backbone = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)


def build(config, told=()):
    torch.manual_seed(0)
    module = build_backbone(config, TOKENS if config.takes_tokens else VECTORS, told=told)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def test_all_backbones_are_asked():
    assert {config.kind for config in CONFIGS} == {each.kind for each in get_args(BackboneConfig)}


@each_backbone
def test_it_takes_what_it_says(config):
    assert build(config)(torch.randn(3, 54), torch.rand(3)).shape == (3, 54)
    other = VECTORS if config.takes_tokens else TOKENS
    with pytest.raises(ConfigError, match="and the codes are"):
        build_backbone(config, other)


@each_backbone
def test_each_is_told_conditions(config):
    module, x, t = build(config, (1, 2)), torch.randn(3, 54), torch.rand(3)
    numbers = [torch.full((3, 3), value) for value in (0.0, 1.0, float("nan"))]
    found = [module(x, t, told) for told in numbers]
    assert not torch.equal(found[0], found[1])
    torch.testing.assert_close(found[2], module(x, t))


@each_backbone
def test_only_what_takes_masks_is_told_what_is_there(config):
    module, x, t = build(config), torch.randn(3, 54), torch.rand(3)
    present = torch.ones(3, 54, dtype=torch.bool)
    present[:, 4:8] = False  # the second unit
    if not config.takes_masks:
        with pytest.raises(TypeError):
            module(x, t, present_BK=present)
        return
    out = module(x, t, present_BK=present)
    assert not out[~present].any() and out[present].all()
    changed = torch.where(present, x, 7.0)
    assert torch.equal(module(changed, t, present_BK=present), out)


@each_backbone
def test_exchangeable_tokens_are_those_whose_order_means_nothing(config):
    if not config.takes_tokens:
        assert not config.has_exchangeable and not config.ignores_order
        return
    module, x, t = build(config).double(), torch.randn(3, 54).double(), torch.rand(3).double()
    parts = list(x.split([count * size for count, size in TOKENS.sections], 1))
    free = config.exchangeable(TOKENS.sections)
    assert any(free) == config.has_exchangeable
    assert not config.ignores_order or all(free)
    # The last hidden layer: of an earlier one the order is that of numbers of the next.
    section, order = TOKENS.sections[1], torch.tensor([2, 0, 3, 1])
    moved = [
        part.unflatten(1, section)[:, order].flatten(1) if i == 1 else part
        for i, part in enumerate(parts)
    ]
    found, wanted = module(torch.cat(moved, 1), t), module(x, t)
    pieces = list(wanted.split([count * size for count, size in TOKENS.sections], 1))
    pieces[1] = pieces[1].unflatten(1, section)[:, order].flatten(1)
    assert torch.allclose(found, torch.cat(pieces, 1), atol=1e-10) == free[1]


@each_backbone
def test_its_arithmetic_is_nearly_what_torch_counts(config):
    """Time is embedded once for a sample, and counted little."""
    shape = TOKENS if config.takes_tokens else VECTORS
    module = build_backbone(config, shape).double().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(16, 54).double(), torch.zeros(1).double())
    counted = counter.get_total_flops() / 2 / 16  # in float64: oneDNN is not counted
    assert config.multiplications(shape) == pytest.approx(counted, rel=0.5)


@each_backbone
def test_its_widest_layer_is_at_least_a_vector(config):
    shape = TOKENS if config.takes_tokens else VECTORS
    assert config.widest(shape) >= shape.size
    has_wider = config.takes_tokens or isinstance(config, Conv1dConfig)
    assert (config.widest(shape) > shape.size) == has_wider


@each_backbone
def test_what_its_backward_keeps_is_nearly_what_autograd_keeps(config):
    """Of a sequence that is long beside what is kept once."""
    shape = Shape(256 * 64, ((128, 64), (128, 64)))
    if not config.kept_numbers(shape):
        return
    long = replace(config, width=64, window=64, depth=4)
    module = build_backbone(long, shape)
    x, t = torch.randn(4, shape.size), torch.rand(4)
    found = saved_bytes(lambda: module(x, t), but=module.parameters()) / 4 / 4
    assert long.kept_numbers(shape) == pytest.approx(found, rel=0.1)
    less = replace(long, checkpointing=True)
    module = build_backbone(less, shape).train()
    held = saved_bytes(lambda: module(x, t), but=module.parameters()) / 4 / 4
    deeper = replace(long, depth=5).kept_numbers(shape)
    again = deeper - long.kept_numbers(shape)  # one block's
    assert less.kept_numbers(shape) - again == pytest.approx(held, rel=0.1)


def test_a_token_backbone_without_tokens_is_as_wide_as_its_vector():
    assert TransformerConfig().widest(VECTORS) == NeuralGraphConfig().widest(VECTORS) == 54
    assert VECTORS.num_tokens == 0 and TOKENS.num_tokens == 10


# --- a backbone of one's own -----------------------------------------------------------------


@dataclass(frozen=True)
class OwnConfig(TokenBackboneSettings):
    """Settings of a backbone that dwf does not know."""

    width: int = 8
    kind: Literal["own"] = "own"

    def multiplications(self, shape):
        return shape.size * self.width


class OwnBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix = Linear(width, width)

    def hidden_layers(self):
        return [self.mix]

    def forward(self, x):
        return x + self.mix(x)


class OwnBackbone(TokenBackbone):
    """Each number by itself."""

    def __init__(self, config, shape, told=()):
        super().__init__(config.width, shape)
        self.enter = Linear(1, config.width)
        self.blocks = nn.ModuleList(OwnBlock(config.width) for _ in range(2))
        self.leave = Linear(config.width, 1)
        self.embed_condition = ConditionEmbedding(config.width, told) if told else None

    def _run(self, x_BK, time_BW, present_BK):
        hidden = self.enter(x_BK.unsqueeze(2)) + time_BW.unsqueeze(1)
        for block in self.blocks:
            hidden = block(hidden)
        return self.leave(hidden).squeeze(2)


def test_a_backbone_of_ones_own_has_masks_conditions_and_muon(monkeypatch):
    monkeypatch.setitem(BACKBONES, "own", "tests.backbones.test_contracts:OwnBackbone")
    module, x, t = build(OwnConfig(), (1,)), torch.randn(3, 54), torch.rand(3)
    present = torch.rand(3, 54) < 0.5
    out = module(x, t, torch.zeros(3, 1), present)
    assert not out[~present].any() and torch.equal(
        out[present], module(x, t, torch.zeros(3, 1))[present]
    )
    assert not torch.equal(out, module(x, t, torch.ones(3, 1), present))
    hidden = module.hidden_matrices()
    assert [each.data_ptr() for each in hidden] == [b.mix.weight.data_ptr() for b in module.blocks]
    assert [tuple(layer.shape) for layer in module._layers(x)] == [(3, 5, 4), (3, 4, 8), (3, 1, 2)]
