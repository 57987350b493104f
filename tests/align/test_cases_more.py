"""Networks on which true groups were once missed: orders that blocks share, other channels."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from dwf.align.canonical import transport_orders
from dwf.align.groups import Group, Member, permute, random_orders, scale_units
from dwf.align.matching import match_networks
from dwf.align.symmetry import log_size, symmetry_of
from dwf.align.verify import verify_symmetry
from dwf.zoo.layout import Entry, Layout
from tests.align import cases
from tests.align.test_cases import groups_of, names_of
from tests.align.test_trace import Custom, count_by_brute_force, sizes


@pytest.fixture(autouse=True)
def random_numbers():
    torch.manual_seed(0)


def found_again(network, groups, layout):
    """Whether matching undoes random orders of all units."""
    reference_D = torch.randn(layout.size)
    orders = random_orders(groups, 4, seed=1)
    shuffled_ND = permute(reference_D.repeat(4, 1), layout, groups=groups, orders=orders)
    orders = match_networks(shuffled_ND, reference_D, layout=layout, groups=groups)
    found_ND = permute(shuffled_ND, layout, groups=groups, orders=orders)
    return torch.equal(found_ND, reference_D.expand_as(found_ND))


def test_channels_around_a_padded_shortcut_are_a_group():
    network = cases.PaddedShortcut()
    groups = groups_of(network)
    assert [(g.size, g.kind) for g in groups] == [(4, "stream"), (8, "units"), (4, "units")]
    assert all(group.scales for group in groups)
    around = [m for m in groups[2].members if m.name == "b.weight"]
    assert [m.places for m in around] == [(0, 1, 6, 7)]
    assert found_again(network, groups, Layout.of(network))


def test_the_first_papers_resnet_20_at_full_size():
    network = cases.PaddedResNet()
    groups = symmetry_of(network, Layout.of(network), input_shape=network.shape)
    assert verify_symmetry(network, groups, input_shape=network.shape) < 1e-11
    # Units within 9 blocks; streams of 16, of the 16 more around them, and of the 32 around those.
    assert sizes(groups, "units") + sizes(groups, "stream") == FIRST_PAPERS
    assert cases.largest_change(network, groups, network.shape) < 1e-9


FIRST_PAPERS = [16, 16, 16, 32, 32, 32, 64, 64, 64, 16, 16, 32]


def test_every_other_channel_of_a_shuffle():
    def run(m, x):
        h = torch.relu(m.a(x))
        first, second = h[:, ::2], h[:, 1::2]
        return m.out(torch.relu(m.b(first)).mean((2, 3)) + second.amax((2, 3)))

    layers = {"a": nn.Conv2d(2, 8, 1), "b": nn.Conv2d(4, 4, 1), "out": nn.Linear(4, 3)}
    network = Custom(run, **layers)
    groups = groups_of(network, (2, 4, 4))
    assert sizes(groups) == [4, 4]
    assert found_again(network, groups, Layout.of(network))


def test_places_are_moved_scaled_and_written_as_other_indices_are():
    """Rows 0, 1, 6, 7 of 9, by places and by hand; columns within row blocks, too."""
    layout = Layout((Entry("w", (9, 4), offset=0, role="weight"),))
    rows_ND = torch.randn(3, 36)
    member = Member("w", 0, start=0, places=(0, 1, 6, 7), power=1)
    group = Group(4, (member,), scales=True)
    order_NU = torch.tensor([[2, 0, 3, 1]] * 3)
    expected = rows_ND.view(3, 9, 4).clone()
    expected[:, [0, 1, 6, 7]] = expected[:, [6, 0, 7, 1]]
    found_ND = permute(rows_ND, layout, groups=[group], orders=[order_NU])
    assert torch.equal(found_ND.view(3, 9, 4), expected)
    expected[:, [0, 1, 6, 7]] *= torch.tensor([1.0, 2, 3, 4])[:, None]
    scale_units(layout.unflatten(found_ND), group, factor_NU=torch.tensor([[1.0, 2, 3, 4]] * 3))
    assert torch.equal(found_ND.view(3, 9, 4), expected)
    inner = Group(2, (Member("w", 1, places=(1, 3), rows=(3, 6)),))
    flipped_ND = permute(rows_ND, layout, groups=[inner], orders=[torch.tensor([[1, 0]] * 3)])
    expected = rows_ND.view(3, 9, 4).clone()
    expected[:, 3:6, [1, 3]] = expected[:, 3:6, [3, 1]]
    assert torch.equal(flipped_ND.view(3, 9, 4), expected)


def test_heads_share_the_order_of_queries_and_keys_under_one_norm():
    network = cases.NormedQueries()
    layout, groups = Layout.of(network), groups_of(network)
    assert [(g.kind, g.size) for g in groups if g.parent is None] == [
        ("stream", 16),
        ("heads", 4),
        ("query_key", 5),
    ]
    assert [(g.kind, g.size) for g in groups if g.parent is not None] == [("value_output", 5)] * 4
    assert {"qn.weight", "kn.bias"} <= names_of([groups[-1]])
    assert found_again(network, groups, layout)


def test_all_orders_that_leave_normed_queries_are_found():
    """Brute force over rows of queries, keys and the norm: of 2 heads, and of 2 numbers in each."""

    def compute(state):
        q, k = ((IMAGES @ state[n].T).unflatten(-1, (2, 2)).transpose(1, 2) for n in "qk")
        q = functional.layer_norm(q, (2,), state["n"]) + q  # of two numbers alone it is 1 and -1
        return (q @ k.mT).softmax(-1).mean((1, 3)) + (q @ k.mT).square().sum((1, 3))

    class Normed(nn.Module):
        shape = (3, 2)

        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(2, 4, bias=False), nn.Linear(2, 4, bias=False)
            self.n = nn.LayerNorm(2, bias=False)

        def forward(self, x):
            q, k = (f(x).unflatten(-1, (2, 2)).transpose(1, 2) for f in (self.q, self.k))
            q = self.n(q) + q
            return (q @ k.mT).softmax(-1).mean((1, 3)) + (q @ k.mT).square().sum((1, 3))

    tensors = {"q": torch.randn(4, 2), "k": torch.randn(4, 2), "n": torch.rand(2)}
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    axes = [("q", 0), ("k", 0), ("n", 0)]
    network = Normed()
    groups = symmetry_of(network, Layout.of(network), input_shape=network.shape)
    verify_symmetry(network, groups, input_shape=network.shape)
    count = count_by_brute_force(compute, tensors, axes=axes)
    assert count == round(math.exp(log_size(groups))) == 4


IMAGES = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_blocks_that_share_a_norms_weights_move_and_so_do_these():
    def run(m, x):
        h = m.n(m.a(x).unflatten(1, (3, 4))).flatten(1)
        return m.out(torch.relu(h))

    layers = {"a": nn.Linear(5, 12), "n": nn.LayerNorm(4), "out": nn.Linear(12, 2)}
    network = Custom(run, **layers)
    groups = groups_of(network, (5,))
    assert sorted((g.kind, g.size) for g in groups) == [("blocks", 3), ("units", 4)]


def test_transport_orders_shared_queries_the_same_from_any_order():
    network = cases.NormedQueries()
    layout = Layout.of(network)
    groups = symmetry_of(network, layout, input_shape=network.shape)
    weights_ND = torch.randn(2, layout.size)
    shuffled_ND = permute(
        weights_ND, layout, groups=groups, orders=random_orders(groups, 2, seed=1)
    )
    ordered = [
        permute(rows, layout, groups=groups, orders=transport_orders(rows, layout, groups=groups))
        for rows in (weights_ND, shuffled_ND)
    ]
    assert torch.equal(*ordered)
