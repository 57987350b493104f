"""Symmetries of modules that are written in less usual ways: in place, by einsum, by half."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

from dwf.align.symmetry import symmetry_of
from dwf.align.verify import verify_symmetry
from dwf.errors import ConfigError
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from tests.align.test_trace import checked, refused, sizes
from tests.networks.published import NARROW, shape_of


@pytest.fixture(autouse=True)
def random_numbers():
    torch.manual_seed(0)


HALVES = {
    "another function": lambda a, b: (a.tanh(), b),
    "a factor": lambda a, b: (a * 2, b),
    "a constant tensor": lambda a, b: (a * torch.tensor(0.5), b),
    "a summand": lambda a, b: (a + 1, b),
    "another setting": lambda a, b: (
        functional.leaky_relu(a, 0.1),
        functional.leaky_relu(b, 0.2),
    ),
    "another reduction": lambda a, b: (
        torch.stack([a, a * a], 2).mean(2),
        torch.stack([b, b * b], 2).amax(2),
    ),
    "another pooling": lambda a, b: tuple(
        pool(torch.stack([half, half * half], 2), 2).flatten(1)
        for pool, half in ((functional.max_pool1d, a), (functional.avg_pool1d, b))
    ),
}


@pytest.mark.parametrize("how", HALVES)
def test_units_that_are_treated_differently_do_not_change_places(how):
    def run(m, x):
        return m.out(torch.cat(HALVES[how](*m.a(x).chunk(2, 1)), 1))

    groups = checked(run, (5,), a=nn.Linear(5, 8), out=nn.Linear(8, 2))
    assert sizes(groups) == [4, 4]


def in_place(change):
    def run(m, x):
        hidden = m.a(x)
        change(hidden)
        return m.out(hidden)

    return run


def _later_view(hidden):
    seen = hidden.view(-1, 2, 4)
    hidden[:, :4].mul_(3.0)
    seen[:, 0].tanh_()


IN_PLACE = {
    "part": (lambda h: h[:, 4:].add_(1.0), [4, 4]),
    "chunk": (lambda h: h.chunk(2, 1)[0].tanh_(), [4, 4]),
    "whole": (lambda h: h.view(-1, 2, 4).relu_(), [8]),
    "set": (lambda h: h.__setitem__((slice(None), slice(0, 3)), 0.5), [3, 5]),
    "zero": (lambda h: h[:, :2].zero_(), [2, 6]),
    "copy": (lambda h: h[:, :4].copy_(h[:, 4:].clone()), [4, 4]),
    "view of what changed": (_later_view, [4, 4]),
    "copied": (lambda h: h[:, [0, 1, 2, 3]].tanh_(), [8]),
}


@pytest.mark.parametrize("how", IN_PLACE)
def test_changes_in_place_reach_all_that_shares_the_memory(how):
    change, expected = IN_PLACE[how]
    groups = checked(in_place(change), (5,), a=nn.Linear(5, 8), out=nn.Linear(8, 2))
    assert sizes(groups) == expected


class Mixer(nn.Module):
    """A layer of an MLP-Mixer: tokens are mixed, then channels."""

    def __init__(self, tokens=5, width=8):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.tokens = nn.ModuleList([nn.Linear(tokens, 7), nn.Linear(7, tokens)])
        self.channels = nn.ModuleList([nn.Linear(width, 10), nn.Linear(10, width)])

    def forward(self, x):
        mixed = functional.gelu(self.tokens[0](self.norms[0](x).mT))
        x = x + self.tokens[1](mixed).mT
        return x + self.channels[1](functional.gelu(self.channels[0](self.norms[1](x))))


def test_token_mixing_keeps_the_stream_and_names_the_units_that_stay(caplog):
    run = lambda m, x: m.out(m.second(m.first(m.a(x))).mean(1))  # noqa: E731
    with caplog.at_level(logging.WARNING):
        groups = checked(
            run, (5, 6), a=nn.Linear(6, 8), first=Mixer(), second=Mixer(), out=nn.Linear(8, 2)
        )
    assert sizes(groups, "stream") == [8]
    assert sizes(groups, "units") == [10, 10]
    (warning,) = caplog.messages
    assert "hidden units stay where they are" in warning
    assert "first.tokens.0.weight[0], first.tokens.0.bias[0]" in warning
    assert "channels" not in warning


@pytest.mark.parametrize("name", NARROW)
def test_no_units_of_our_architectures_stay_where_they_are(name, caplog):
    network = build_network(NARROW[name])
    with caplog.at_level(logging.WARNING):
        symmetry_of(network, Layout.of(network), input_shape=shape_of(name))
    assert not caplog.messages


def test_einsum_is_followed_as_the_product_that_it_is():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(6, 12) for _ in range(3))
            self.out = nn.Parameter(torch.randn(6, 12))

        def forward(self, x):
            q, k, v = (layer(x).unflatten(-1, (3, 4)) for layer in (self.q, self.k, self.v))
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
            mixed = torch.einsum("bhqk,bkhd->bqhd", scores, v).flatten(2)
            return torch.einsum("oc,btc->bto", self.out, mixed)

    run = lambda m, x: m.out(torch.relu(m.attention(x)).mean(1))  # noqa: E731
    groups = checked(run, (4, 6), attention=Attention(), out=nn.Linear(6, 2))
    assert sizes(groups, "heads") == [3]
    assert sizes(groups, "query_key") == sizes(groups, "value_output") == [4, 4, 4]
    assert sizes(groups, "units") == [6]
    refused(
        lambda m, x: torch.einsum("bi,bi", m.a(x), m.a(x)),
        (3,),
        message=r"the network \[Custom\] \(einsum\): 'bi,bi' is not followed",
        a=nn.Linear(3, 4),
    )


@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_own_transformer_with_a_class_token_and_looked_up_places(norm_first):
    def run(m, x):
        x = m.a(x) + m.places(torch.arange(4))
        x = torch.cat([m.token.expand(len(x), -1, -1), x], 1)
        return m.out(m.encoder(x)[:, 0])

    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True, norm_first=norm_first)
    groups = checked(
        run,
        (4, 6),
        a=nn.Linear(6, 12),
        places=nn.Embedding(4, 12),
        token=nn.Parameter(torch.randn(1, 1, 12)),
        encoder=layer,
        out=nn.Linear(12, 2),
    )
    assert sizes(groups, "stream") == [12]
    assert sizes(groups, "heads") == [3]
    moved = {(member.name, member.axis) for group in groups for member in group.members}
    assert {("places.weight", 1), ("token", 2), ("encoder.norm2.bias", 0)} <= moved


def test_other_ways_to_write_a_layer():
    def run(m, x):
        x = torch.addmm(m.bias, x, m.weight)
        return m.out(functional.glu(m.gate(functional.relu6(x))))

    groups = checked(
        run,
        (3,),
        weight=nn.Parameter(torch.randn(3, 6)),
        bias=nn.Parameter(torch.randn(6)),
        gate=nn.Linear(6, 8),
        out=nn.Linear(4, 2),
    )
    assert sizes(groups) == [4, 6]


def test_a_weight_that_makes_units_and_takes_them_in_has_no_free_scale():
    def run(m, x):
        return torch.relu(m.a(x)) @ m.a.weight

    (group,) = checked(run, (5,), a=nn.Linear(5, 6, bias=False))
    assert not group.scales
    assert {(m.name, m.axis) for m in group.members} == {("a.weight", 0)}


@pytest.mark.parametrize("type_", [torch.bfloat16, torch.float32, torch.float64])
def test_conversions_within_a_forward_do_not_blur_the_check(type_):
    run = lambda m, x: m.out(torch.relu(m.a(x.to(type_))).to(type_))  # noqa: E731
    groups = checked(run, (3,), a=nn.Linear(3, 6, dtype=type_), out=nn.Linear(6, 2, dtype=type_))
    assert sizes(groups) == [6]


def test_compiled_modules_are_followed_and_scripted_ones_refused():
    body = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    assert sizes(checked(lambda m, x: m.body(x), (3,), body=torch.compile(body))) == [6]
    network = nn.Sequential(torch.jit.trace(body, torch.zeros(1, 3)))
    with pytest.raises(ConfigError, match="compiled TorchScript"):
        symmetry_of(network, Layout.of(network), input_shape=(3,))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.LSTM(3, 4), r"a \[LSTM\] \(lstm\): this operation's symmetry is not known"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), r"\(weight_norm\): this oper"),
        (nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), r"\(mv\): this oper"),
    ],
)
def test_layers_that_are_not_followed_are_named(layer, message):
    refused(lambda m, x: m.a(x), (3,), message=message, a=layer)


def test_written_into_a_tensor_made_beforehand_is_refused():
    def run(m, x):
        made = torch.zeros(len(x), 8)
        made[:, :4] = m.a(x)
        return m.out(made)

    refused(run, (3,), message="join them with torch.cat", a=nn.Linear(3, 4), out=nn.Linear(8, 2))


def test_a_network_without_hidden_units_has_no_groups():
    network = nn.Linear(3, 2)
    assert symmetry_of(network, Layout.of(network), input_shape=(3,)) == ()
    assert verify_symmetry(network, (), input_shape=(3,)) == 0.0


def test_groups_of_a_convolution_that_take_in_the_same_units_differ():
    def run(m, x):
        x = m.norm(x)
        first, _ = x.chunk(2, 1)
        x = first.relu().repeat(1, 2, 1, 1) + x
        return m.out(m.b(x).relu().mean((2, 3)))

    groups = checked(
        run,
        (4, 5, 5),
        norm=nn.GroupNorm(2, 4),
        b=nn.Conv2d(4, 4, 3, groups=2),
        out=nn.Linear(4, 2),
    )
    assert sizes(groups) == [2, 2]
