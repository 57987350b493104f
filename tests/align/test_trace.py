"""Symmetries of modules that use what networks are made of: counted by hand, and by brute force."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from dwf.align.groups import Group
from dwf.align.symmetry import log_size, symmetry_of
from dwf.align.verify import verify_symmetry
from dwf.errors import ConfigError
from dwf.zoo.layout import Layout


@pytest.fixture(autouse=True)
def random_numbers():
    torch.manual_seed(0)


class Custom(nn.Module):
    """Layers by name, and how they are run."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


def checked(run, shape, **layers) -> tuple[Group, ...]:
    """The groups of a module, verified."""
    network = Custom(run, **layers)
    groups = symmetry_of(network, Layout.of(network), input_shape=shape)
    assert verify_symmetry(network, groups, input_shape=shape) < 1e-11
    return groups


def sizes(groups, kind=None):
    return sorted(group.size for group in groups if kind in (None, group.kind))


def conv(fan_in, fan_out, kernel=1, **options):
    return nn.Conv2d(fan_in, fan_out, kernel, **options)


def count_by_brute_force(compute, tensors, axes) -> int:
    """How many ways to permute these axes, each by itself, leave a function as it is."""
    whole = compute(tensors)
    orders = [itertools.permutations(range(tensors[name].shape[axis])) for name, axis in axes]
    choices = list(itertools.product(*[list(o) for o in orders]))
    count = 0
    for start in range(0, len(choices), 20_000):
        part = choices[start : start + 20_000]
        stacked = {k: t.expand(len(part), *t.shape).clone() for k, t in tensors.items()}
        for a, (name, axis) in enumerate(axes):
            order = torch.tensor([choice[a] for choice in part])
            view = [len(part)] + [1] * (tensors[name].dim())
            view[axis + 1] = -1
            stacked[name] = stacked[name].gather(
                axis + 1, order.view(view).expand(stacked[name].shape)
            )
        found = torch.func.vmap(compute)(stacked)
        count += int(((found - whole).abs().flatten(1).amax(1) < 1e-10).sum())
    return count


def test_a_residual_network_has_as_many_symmetries_as_brute_force_finds():
    """Every order of every axis by itself, of which the traced groups are all that work."""

    def run(m, x):
        x = functional.gelu(m.a(x))
        return m.d(x + m.c(functional.gelu(m.b(x))))

    network = Custom(
        run, a=nn.Linear(2, 2), b=nn.Linear(2, 3), c=nn.Linear(3, 2), d=nn.Linear(2, 2)
    ).double()
    axes = [("a.weight", 0), ("a.bias", 0), ("b.weight", 0), ("b.weight", 1), ("b.bias", 0)]
    axes += [("c.weight", 0), ("c.weight", 1), ("c.bias", 0), ("d.weight", 1)]
    images = torch.randn(6, 2, dtype=torch.float64)

    def compute(state):
        return torch.func.functional_call(network, state, (images,))

    tensors = {k: torch.randn_like(v) for k, v in network.state_dict().items()}
    count = count_by_brute_force(compute, tensors, axes=axes)
    groups = symmetry_of(network, Layout.of(network), input_shape=(2,))
    assert count == round(math.exp(log_size(groups))) == 2 * 6


def test_attention_has_as_many_symmetries_as_brute_force_finds():
    """Rows of queries, keys, values and columns behind them: heads, and units within each."""

    def run(m, x):
        q, k, v = (f(x).unflatten(-1, (2, 2)).transpose(1, 2) for f in (m.q, m.k, m.v))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return m.out(mixed.transpose(1, 2).flatten(2)).mean(1)

    layers = {name: nn.Linear(2, 4, bias=False) for name in "qkv"}
    network = Custom(run, **layers, out=nn.Linear(4, 2, bias=False)).double()
    images = torch.randn(2, 3, 2, dtype=torch.float64)
    tensors = {k: torch.randn_like(v) for k, v in network.state_dict().items()}

    def compute(state):
        q, k, v = (
            (images @ state[f"{n}.weight"].T).unflatten(-1, (2, 2)).transpose(1, 2) for n in "qkv"
        )
        mixed = torch.softmax(q @ k.mT / 2**0.5, -1) @ v
        return (mixed.transpose(1, 2).flatten(2) @ state["out.weight"].T).mean(1)

    axes = [("q.weight", 0), ("k.weight", 0), ("v.weight", 0), ("out.weight", 1)]
    count = count_by_brute_force(compute, tensors, axes=axes)
    groups = symmetry_of(network, Layout.of(network), input_shape=(3, 2))
    assert count == round(math.exp(log_size(groups))) == 2 * 2**2 * 2**2


def test_concatenation_keeps_its_parts_apart_and_sums_tie_them():
    def run(m, x):
        a, b = m.a(x), m.b(x)
        joined = torch.cat([a, b], 1)
        return m.out((joined + m.c(torch.relu(joined))).mean((2, 3)))

    groups = checked(run, (2, 4, 4), a=conv(2, 3), b=conv(2, 4), c=conv(7, 7), out=nn.Linear(7, 2))
    assert sizes(groups) == [3, 4]
    second = max(groups, key=lambda group: group.size)
    assert {(m.name, m.axis, m.start) for m in second.members} == {
        ("b.weight", 0, 0),
        ("b.bias", 0, 0),
        ("c.weight", 0, 3),
        ("c.weight", 1, 3),
        ("c.bias", 0, 3),
        ("out.weight", 1, 3),
    }


def test_flattening_with_channels_first_and_last():
    first = checked(
        lambda m, x: m.out(torch.relu(m.a(x)).flatten(1)),
        (1, 2, 3),
        a=conv(1, 4),
        out=nn.Linear(24, 2),
    )
    last = checked(
        lambda m, x: m.out(torch.relu(m.a(x)).permute(0, 2, 3, 1).flatten(1)),
        (1, 2, 3),
        a=conv(1, 4),
        out=nn.Linear(24, 2),
    )
    assert [(m.outer, m.inner) for m in first[0].members if m.axis == 1] == [(1, 6)]
    assert [(m.outer, m.inner) for m in last[0].members if m.axis == 1] == [(6, 1)]


def test_gates_depthwise_convolutions_and_pooling():
    def run(m, x):
        x = functional.hardswish(m.norm(m.deep(functional.max_pool2d(m.a(x), 2))))
        gate = torch.sigmoid(m.up(torch.relu(m.down(functional.adaptive_avg_pool2d(x, 1)))))
        return m.out((x * gate).mean((2, 3)))

    groups = checked(
        run,
        (2, 8, 8),
        a=conv(2, 5),
        deep=conv(5, 5, kernel=3, groups=5, padding=1),
        norm=nn.BatchNorm2d(5),
        down=conv(5, 2),
        up=conv(2, 5),
        out=nn.Linear(5, 3),
    )
    assert sizes(groups) == [2, 5]


def test_a_depthwise_convolution_carries_the_scale_of_what_it_takes_and_makes():
    run = lambda m, x: m.out(torch.relu(m.deep(torch.relu(m.a(x)))).mean((2, 3)))  # noqa: E731
    (group,) = checked(
        run, (1, 5, 5), a=conv(1, 4), deep=conv(4, 4, kernel=3, groups=4), out=nn.Linear(4, 2)
    )
    powers = {m.name: m.power for m in group.members}
    assert group.scales
    assert powers == {
        "a.weight": 1,
        "a.bias": 1,
        "deep.weight": 0,  # taken over s, made times s
        "deep.bias": 1,
        "out.weight": -1,
    }


def test_group_norm_lets_groups_and_units_within_them_move():
    run = lambda m, x: m.out(m.norm(m.a(x)).relu().mean((2, 3)))  # noqa: E731
    groups = checked(run, (2, 4, 4), a=conv(2, 6), norm=nn.GroupNorm(3, 6), out=nn.Linear(6, 2))
    assert sizes(groups, "blocks") == [3]
    assert sizes(groups, "units") == [2, 2, 2]


def test_a_block_of_a_grouped_convolution_with_more_outputs_than_inputs():
    run = lambda m, x: m.out(torch.relu(m.b(m.a(x))).mean((2, 3)))  # noqa: E731
    groups = checked(run, (2, 4, 4), a=conv(2, 3), b=conv(3, 6, groups=3), out=nn.Linear(6, 2))
    assert sizes(groups, "blocks") == [3]
    assert sizes(groups, "units") == [2, 2, 2]


def test_a_zero_padded_shortcut_ties_the_channels_that_it_carries():
    def run(m, x):
        x = torch.relu(m.a(x))
        x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) + m.b(x)
        return m.out(x.mean((2, 3)))

    groups = checked(
        run, (1, 4, 4), a=conv(1, 3), b=conv(3, 5, kernel=2, stride=2), out=nn.Linear(5, 2)
    )
    stream = next(group for group in groups if group.size == 3)
    assert ("b.weight", 0, 1) in {(m.name, m.axis, m.start) for m in stream.members}


def test_a_module_that_is_run_twice_takes_and_gives_alike():
    run = lambda m, x: m.out(torch.relu(m.b(torch.relu(m.b(torch.relu(m.a(x)))))))  # noqa: E731
    (group,) = checked(run, (3,), a=nn.Linear(3, 4), b=nn.Linear(4, 4), out=nn.Linear(4, 2))
    assert {("b.weight", 0), ("b.weight", 1)} <= {(m.name, m.axis) for m in group.members}


def test_constants_pin_the_channels_that_they_tell_apart():
    shift = torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0])
    run = lambda m, x: m.out(torch.relu(m.a(x) + shift))  # noqa: E731
    groups = checked(run, (3,), a=nn.Linear(3, 5), out=nn.Linear(5, 2))
    assert sizes(groups) == [3]  # those to which the same is added
    assert not any(group.scales for group in groups)


def test_attention_with_a_bias_for_each_head_and_a_norm_of_queries():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.norm = nn.Linear(6, 36), nn.LayerNorm(4)
            self.bias, self.out = nn.Parameter(torch.randn(3, 1, 1)), nn.Linear(12, 6)

        def forward(self, x):
            b, n, _ = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, 3, 4).permute(2, 0, 3, 1, 4)
            scores = (q @ k.transpose(-2, -1)) * self.bias
            return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, 12)).mean(1)

    layer = Attention()
    run = lambda m, x: m.out(torch.relu(m.attention(x)))  # noqa: E731
    groups = checked(run, (4, 6), attention=layer, out=nn.Linear(6, 2))
    assert sizes(groups, "heads") == [3]
    assert len([g for g in groups if g.kind == "query_key"]) == 3
    heads = next(group for group in groups if group.kind == "heads")
    assert ("attention.bias", 0) in {(m.name, m.axis) for m in heads.members}


def refused(run, shape, message, **layers):
    network = Custom(run, **layers)
    with pytest.raises(ConfigError, match=message):
        symmetry_of(network, Layout.of(network), input_shape=shape)


def test_control_flow_that_depends_on_numbers_is_refused():
    def run(m, x):
        x = m.a(x)
        return m.out(x if x.sum() > 0 else -x)

    refused(
        run,
        (3,),
        message=r"the network \[Custom\] \(bool\): what is computed depends on the numbers",
        a=nn.Linear(3, 4),
        out=nn.Linear(4, 2),
    )


def test_unknown_operations_are_refused_where_they_are():
    body = Custom(
        lambda m, x: m.out(torch.cumsum(m.a(x), 1)), a=nn.Linear(3, 4), out=nn.Linear(4, 2)
    )
    refused(
        lambda m, x: m.body(x),
        (3,),
        message=r"body \[Custom\] \(cumsum\): this operation's symmetry is not known",
        body=body,
    )


def test_a_tensor_of_two_names_is_one_and_its_units_are_one_group():
    """Units that one matrix takes in and gives out, in whichever layer, stay in step."""
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    second.weight = first.weight
    network = Custom(
        lambda m, x: m.out(m.second(m.first(m.inner(x)).relu()).relu()),
        inner=nn.Linear(3, 4),
        first=first,
        second=second,
        out=nn.Linear(4, 2),
    )
    layout = Layout.of(network)
    assert list(layout.by_name) == [
        *("inner.weight", "inner.bias", "first.weight", "out.weight", "out.bias")
    ]
    (group,) = symmetry_of(network, layout, input_shape=(3,))
    assert group.size == 4
    members = {(member.name, member.axis) for member in group.members}
    assert members == {
        *(("inner.weight", 0), ("inner.bias", 0), ("first.weight", 0), ("first.weight", 1)),
        ("out.weight", 1),
    }
    assert verify_symmetry(network, [group], input_shape=(3,)) < 1e-11


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda m, x: functional.local_response_norm(m.a(x), 3).mean((2, 3)), "its neighbours"),
        (lambda m, x: torch.from_numpy(m.a(x).numpy()), "depends on the numbers"),
        (lambda m, x: (m.a(x), 1), "gives tuple, not one tensor"),
        (lambda m, x: functional.conv2d(x, m.a.weight * 2).mean((2, 3)), "its weight is computed"),
        (
            lambda m, x: functional.conv2d(m.a(x), m.a.weight, groups=3),
            "4 channels and 4 filters of 2 channels do not divide into groups = 3",
        ),
        (lambda m, x: m.a(x[:, :1]).mean((2, 3)), "1 channels and 4 filters of 2 channels"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(run, message):
    refused(run, (2, 8, 8), message=message, a=conv(2, 4))
