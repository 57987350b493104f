"""The transformer over long sequences: the plain one where a window is all, else attention by loop.

The reference computes each block with one dense matrix of who hears whom, and a softmax by hand.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from dwf.backbones.config import LongTransformerConfig, TransformerConfig, build_backbone
from dwf.backbones.shape import Shape
from dwf.errors import ConfigError

SECTIONS = ((5, 7), (4, 6), (1, 3))
SHAPE = Shape(5 * 7 + 4 * 6 + 3, SECTIONS)
SMALL = LongTransformerConfig(width=16, heads=2, depth=3, expansion=2, window=4)


def backbone(config=SMALL, told=()):
    torch.manual_seed(0)
    module = build_backbone(config, SHAPE, told=told)
    for parameter in module.parameters():  # it begins at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double()


def inputs(count=3):
    stream = torch.Generator().manual_seed(1)
    x, t = torch.randn(count, SHAPE.size, generator=stream), torch.rand(count, generator=stream)
    return x.double(), t.double()


def token_mask(kind):
    """Which tokens two sequences have: the second lacks one of the first layer and the last two."""
    there = torch.ones(3, 10, dtype=torch.bool)
    if kind == "holes":
        there[1, [2, 7, 8]] = False
    if kind == "a window without any":
        there[1, :4] = False
    return there


def numbers_of(there):
    sizes = torch.tensor([size for count, size in SECTIONS for _ in range(count)])
    return there.repeat_interleave(sizes, dim=1)


def who_hears_whom(there, window, num_global, moved):
    """[B, from, to], token by token."""
    num = there.shape[1]
    heard = torch.zeros(len(there), num + num_global, num + num_global, dtype=torch.bool)
    for i in range(num + num_global):
        for j in range(num + num_global):
            are_global = i >= num or j >= num
            together = are_global or (i + moved) // window == (j + moved) // window
            heard[:, i, j] = (there[:, j] if j < num else True) & together
    return heard


def by_hand(module, x, t, there, condition=None):
    """Velocities by dense attention from the same parameters; where nothing is, 0."""
    config, num = SMALL, there.shape[1]
    numbers = numbers_of(there)
    window, width_of_head = module.window, config.width // config.heads
    time = module.embed_time(t)
    if condition is not None:
        before = module.embed_time[:-1](t)
        time = functional.silu(before + module.embed_condition(condition))
    layers = (x * numbers).split([count * size for count, size in SECTIONS], 1)
    hidden = []
    for number, (part, section) in enumerate(zip(layers, SECTIONS, strict=True)):
        entered = module.enter[number](part.unflatten(1, section))
        layer, unit, place = (table.weight for table in module.positions)
        hidden.append(entered + layer[number] + unit[: section[0]] + place[0])
    hidden = torch.cat(hidden, 1)
    num_global = 0 if module.global_GW is None else len(module.global_GW)
    if num_global:
        each = num_global // len(SECTIONS)
        layers_of = [module.positions[0].weight[i // each] for i in range(num_global)]
        others = module.global_GW + torch.stack(layers_of)
        hidden = torch.cat([hidden, others.expand(len(x), -1, -1)], 1)

    def norm(value, shift, scale):
        value = value - value.mean(2, keepdim=True)
        return (
            value / (value.var(2, keepdim=True, correction=0) + 1e-5).sqrt() * (1 + scale) + shift
        )

    for number, block in enumerate(module.blocks):
        parts = block.modulate(time)[:, None].chunk(6, 2)
        query, key, value = block.project(norm(hidden, *parts[:2])).chunk(3, 2)
        moved = window // 2 if number % 2 and window < num else 0
        heard = who_hears_whom(there, window, num_global, moved)
        joined = []
        for head in range(config.heads):
            of_head = slice(head * width_of_head, (head + 1) * width_of_head)
            scores = query[..., of_head] @ key[..., of_head].transpose(1, 2)
            scores = (scores / math.sqrt(width_of_head)).masked_fill(~heard, -1e9)
            joined.append(scores.softmax(2) @ value[..., of_head])
        hidden = hidden + parts[2] * block.join(torch.cat(joined, 2))
        hidden = hidden + parts[5] * block.perceptron(norm(hidden, *parts[3:5]))
    left = norm(hidden[:, :num], *module.modulate(time)[:, None].chunk(2, 2))
    pairs = zip(left.split([count for count, _ in SECTIONS], 1), module.leave, strict=True)
    return torch.cat([leave(part).flatten(1) for part, leave in pairs], 1) * numbers


@pytest.mark.parametrize("kind", ["all", "holes", "a window without any"])
@pytest.mark.parametrize(
    ("window", "num_global"), [(4, 1), (4, 0), (3, 2), (1, 1), (5, 0), (10, 1)]
)
def test_it_is_attention_by_hand_and_so_are_its_gradients(window, num_global, kind):
    module = backbone(replace(SMALL, window=window, global_tokens=num_global))
    (x, t), there = inputs(), token_mask(kind)
    present = None if kind == "all" else numbers_of(there)
    found, wanted = module(x, t, None, present), by_hand(module, x, t, there)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert wanted.abs().max() > 0.1
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2)).double()
    grads = [
        torch.autograd.grad((each * weights).sum(), list(module.parameters()))
        for each in (found, wanted)
    ]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-8)


def test_conditions_modulate_it():
    module, (x, t) = backbone(told=(1,)), inputs()
    condition = torch.tensor([[0.5], [math.nan], [-1.0]]).double()
    wanted = by_hand(module, x, t, token_mask("all"), condition)
    torch.testing.assert_close(module(x, t, condition), wanted, rtol=0, atol=1e-9)
    assert not torch.allclose(module(x, t), wanted)


@pytest.mark.parametrize("kind", ["all", "holes"])
def test_with_one_window_and_no_global_token_it_is_the_transformer(kind):
    module = backbone(replace(SMALL, window=10, global_tokens=0), told=(1,)).float()
    twin = build_backbone(
        TransformerConfig(width=16, heads=2, depth=3, expansion=2, positions=True),
        SHAPE,
        told=(1,),
    )
    state = {k: v for k, v in module.state_dict().items() if not k.startswith("positions.")}
    positions = module._place(torch.zeros(10, 16))
    twin.load_state_dict(state | {"positions_TW": positions})
    x, t = (each.float() for each in inputs())
    condition, present = torch.tensor([[0.5], [math.nan], [-1.0]]), numbers_of(token_mask(kind))
    found, wanted = (each(x, t, condition, present) for each in (module, twin))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert wanted.abs().max() > 0.1


def test_global_tokens_carry_what_a_token_says_to_all_and_windows_alone_do_not():
    (x, t), one_block = inputs(1), replace(SMALL, depth=2)

    def hears(module):
        jacobian = torch.autograd.functional.jacobian(lambda x: module(x, t), x)[0, :, 0]
        by_token = torch.zeros(10, 10, dtype=torch.bool)
        ends = numbers_of(torch.eye(10, dtype=torch.bool))
        for i in range(10):
            for j in range(10):
                by_token[i, j] = jacobian[ends[i]][:, ends[j]].abs().max() > 0
        return by_token

    assert hears(backbone(one_block)).all()
    alone = hears(backbone(replace(one_block, global_tokens=0)))
    # Windows 0-3, 4-7, 8-9, then 0-1, 2-5, 6-9: the first hears the third, and not the fifth.
    assert alone[0].tolist() == [True] * 4 + [False] * 6
    assert alone[2].tolist() == [True] * 8 + [False] * 2


def test_every_parameter_learns_from_a_start_at_zero():
    torch.manual_seed(0)
    module = build_backbone(SMALL, SHAPE).double()
    (x, t), wanted = inputs(32), torch.randn(32, SHAPE.size).double()
    assert not module(x, t).any()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(4):  # the zeroed layers let gradients through one step after another
        optimizer.zero_grad()
        (module(x, t) - wanted).square().mean().backward()
        optimizer.step()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


def test_checkpointing_changes_no_gradient():
    x, t = inputs()
    found = []
    for checkpointing in (False, True):
        module = backbone(replace(SMALL, checkpointing=checkpointing)).train()
        module(x, t, None, numbers_of(token_mask("holes"))).square().sum().backward()
        found.append([p.grad for p in module.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_layer_in_several_sections_has_one_set_of_global_tokens():
    class Halves(Shape):
        num_layers = 1

        def places(self):
            return [(0, i // 2, i % 2) for i in range(4)]

    module = build_backbone(replace(SMALL, global_tokens=3), Halves(10, ((2, 3), (2, 2))))
    assert module.global_GW.shape == (3, 16)
    assert [len(table.weight) for table in module.positions] == [1, 2, 2]
    assert module(torch.randn(2, 10), torch.rand(2)).shape == (2, 10)


def test_cost_and_memory_are_linear_in_tokens():
    config = replace(SMALL, width=64, window=256)

    def of(number):
        shape = Shape(64 * number, ((number, 64),))
        return config.multiplications(shape), config.kept_numbers(shape)

    for one, double in zip(of(4096), of(8192), strict=True):
        assert double == pytest.approx(2 * one, rel=0.01)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"window = 11, .* 10 tokens: set it to at most 10"):
        build_backbone(replace(SMALL, window=11), SHAPE)
    with pytest.raises(ValueError, match="width = 20 must be a multiple of 2 x heads = 8"):
        LongTransformerConfig(width=20)
    with pytest.raises(ConfigError, match=r"'long_transformer' takes tokens.*vectors of 62"):
        build_backbone(SMALL, Shape(62))


def test_bf16_on_a_cpu_is_float32_to_its_precision():
    module = backbone().float()
    for parameter in module.parameters():
        parameter.data *= 1 / 3
    x, t = (each.float() for each in inputs())
    wanted = module(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x, t)
    assert 0 < (found - wanted).norm() < 0.02 * wanted.norm()  # eight bits
