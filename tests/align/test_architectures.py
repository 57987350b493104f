"""Matching networks of every kind of group: planted orders, brute force, what is kept of visits."""

import itertools

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from dwf.align.groups import Group, Member, identity_orders, permute, random_orders
from dwf.align.matching import terms
from dwf.align.matching.assignment import assign, total
from dwf.align.matching.matcher import match_networks
from dwf.align.symmetry import symmetry_of
from dwf.networks.functional import build_network
from dwf.zoo.layout import Entry, Layout
from tests.align.by_hand import grouped_net, mlp_groups, small_resnet, small_vit

MAKERS = {"vit": small_vit, "resnet": small_resnet, "grouped": grouped_net}
TRACED = {
    "cnn": ({"kind": "cnn", "channels": (6, 8), "hidden": (10,)}, (1, 28, 28)),
    "resnet_cifar": ({"kind": "resnet_cifar", "depth": 8, "width": 4}, (3, 16, 16)),
    "vit": ({"kind": "vit", "image": 8, "width": 12, "depth": 2, "heads": 3}, (3, 8, 8)),
    "densenet": ({"kind": "densenet", "blocks": (2, 2), "growth": 4}, (3, 32, 32)),
}


def randomised(network, layout, seed=0):
    """Weights of a network as drawn, with its constants (norms, zeros) drawn, too: float32 [D]."""
    generator = torch.Generator().manual_seed(seed)
    weights_D = layout.flatten(network.state_dict())
    for entry in layout.entries:
        part = weights_D[entry.offset : entry.stop]
        noise = torch.randn(entry.size, generator=generator)
        if entry.role == "buffer":
            part.copy_(0.01 * noise if "mean" in entry.name else noise.square() * 0.01 + 0.05)
        elif part.std() == 0:
            part.add_(0.1 * noise)
    return weights_D


def objective(weights_ND, reference_D, layout):
    kept = torch.cat([torch.full((e.size,), e.role != "buffer") for e in layout.entries])
    return weights_ND.double() @ (reference_D * kept).double()


@pytest.mark.parametrize("start", ["ties", "spectra"])
@pytest.mark.parametrize("kind", MAKERS)
def test_undoes_planted_permutations_of_every_group(kind, start):
    torch.manual_seed(0)
    network, layout, groups = MAKERS[kind]()
    for drawn in (layout.flatten(network.state_dict()), randomised(network, layout)):
        shuffled_ND = permute(
            drawn.repeat(8, 1), layout, groups=groups, orders=random_orders(groups, 8, seed=1)
        )
        orders = match_networks(shuffled_ND, drawn, layout=layout, groups=groups, start=start)
        found_ND = permute(shuffled_ND, layout, groups=groups, orders=orders)
        assert torch.equal(found_ND, drawn.expand_as(found_ND))


@pytest.mark.parametrize("kind", TRACED)
def test_undoes_planted_permutations_of_traced_architectures(kind):
    from dwf.networks.config import NetworkConfig
    from dwf.settings import build

    facts, shape = TRACED[kind]
    torch.manual_seed(1)
    network = build_network(build(NetworkConfig, facts, source="test"))
    layout = Layout.of(network)
    groups = symmetry_of(network, layout, input_shape=shape)
    reference_D = layout.flatten(network.state_dict())
    noisy_ND = reference_D + 0.1 * reference_D.std() * torch.randn(3, layout.size)
    shuffled_ND = permute(noisy_ND, layout, groups=groups, orders=random_orders(groups, 3, seed=2))
    orders = match_networks(shuffled_ND, reference_D, layout=layout, groups=groups)
    found_ND = permute(shuffled_ND, layout, groups=groups, orders=orders)
    assert torch.equal(found_ND, noisy_ND)


@pytest.mark.parametrize("kind", MAKERS)
def test_no_sweep_lowers_the_objective_and_running_statistics_take_no_part(kind):
    network, layout, groups = MAKERS[kind]()
    weights_ND = torch.stack([randomised(network, layout, seed=seed) for seed in range(4)])
    weights_ND += 0.1 * torch.randn(4, layout.size, generator=torch.Generator().manual_seed(0))
    reference_D = randomised(network, layout, seed=9)
    values, last = [objective(weights_ND, reference_D, layout=layout)], None
    for sweeps in range(1, 6):
        last = match_networks(
            weights_ND, reference_D, layout=layout, groups=groups, max_sweeps=sweeps
        )
        values.append(
            objective(
                permute(weights_ND, layout, groups=groups, orders=last), reference_D, layout=layout
            )
        )
    assert (torch.stack(values).diff(dim=0) > -1e-4).all()
    other_ND, buffers = weights_ND.clone(), [e for e in layout.entries if e.role == "buffer"]
    for entry in buffers:
        other_ND[:, entry.offset : entry.stop] *= 100
    again = match_networks(other_ND, reference_D, layout=layout, groups=groups, max_sweeps=5)
    moved = [not torch.equal(a, b) for a, b in zip(last, again, strict=True)]
    assert not any(moved)


def test_heads_and_units_within_are_as_good_as_every_order_tried():
    """Two heads of two: 2 * (2 * 2)^2 orders; given all else, the step is exact."""
    width, heads, size = 4, 2, 2
    shapes = {"qkv": (3 * width, 5), "out": (5, width)}
    layout, groups = _attention(shapes, width, heads, size)
    generator = torch.Generator().manual_seed(0)
    weights_ND = torch.randn(6, layout.size, generator=generator)
    reference_D = torch.randn(layout.size, generator=generator)
    found = match_networks(weights_ND, reference_D, layout=layout, groups=groups)
    ours_N = permute(weights_ND, layout, groups=groups, orders=found) @ reference_D
    best_N = torch.full((6,), -torch.inf)
    pairs = list(itertools.permutations(range(2)))
    for choice in itertools.product(pairs, repeat=len(groups)):
        orders = [torch.tensor([order]).repeat(6, 1) for order in choice]
        best_N = torch.maximum(
            best_N, permute(weights_ND, layout, groups=groups, orders=orders) @ reference_D
        )
    torch.testing.assert_close(ours_N, best_N)


def _attention(shapes, width, heads, size):
    groups = []
    for place in range(heads):
        at = place * size
        query_key = (Member("qkv", 0, start=at), Member("qkv", 0, start=width + at))
        value_output = (Member("qkv", 0, start=2 * width + at), Member("out", 1, start=at))
        groups.append(Group(size, query_key, kind="query_key", parent=2 * heads, place=place))
        groups.append(Group(size, value_output, kind="value_output", parent=2 * heads, place=place))
    of_heads = [Member("qkv", 0, start=part * width, inner=size) for part in range(3)]
    groups.append(Group(heads, (*of_heads, Member("out", 1, inner=size)), kind="heads"))
    return _layout(shapes), tuple(groups)


def _layout(shapes):
    entries, offset = [], 0
    for name, shape in shapes.items():
        entries.append(Entry(name, shape, offset=offset, role="weight"))
        offset = entries[-1].stop
    return Layout(tuple(entries))


def test_a_group_on_both_axes_of_a_tensor_never_falls_and_finds_what_was_planted():
    layout = _layout({"square": (7, 7), "in": (7, 3)})
    members = (Member("square", 0), Member("square", 1), Member("in", 0))
    groups = (Group(7, members),)
    generator = torch.Generator().manual_seed(0)
    reference_D = torch.randn(layout.size, generator=generator)
    planted_ND = permute(
        reference_D.repeat(9, 1), layout, groups=groups, orders=random_orders(groups, 9, seed=0)
    )
    orders = match_networks(planted_ND, reference_D, layout=layout, groups=groups)
    assert torch.equal(
        permute(planted_ND, layout, groups=groups, orders=orders), reference_D.expand_as(planted_ND)
    )
    weights_ND = torch.randn(200, layout.size, generator=generator)
    for start in ("identity", "ties"):
        before_N = weights_ND @ reference_D
        for sweeps in (1, 2, 8):
            orders = match_networks(
                weights_ND,
                reference_D,
                layout=layout,
                groups=groups,
                max_sweeps=sweeps,
                start=start,
            )
            after_N = permute(weights_ND, layout, groups=groups, orders=orders) @ reference_D
            assert (after_N >= before_N - 1e-4).all()
            before_N = after_N
        every = torch.tensor(list(itertools.permutations(range(7))))
        most = (
            permute(weights_ND[:1].repeat(len(every), 1), layout, groups=groups, orders=[every])
            @ reference_D
        )
        assert float(after_N[0]) >= 0.5 * float(most.max())


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_kept_between_visits_changes_nothing(kind, monkeypatch):
    _, layout, groups = MAKERS[kind]()
    generator = torch.Generator().manual_seed(0)
    weights_ND = torch.randn(5, layout.size, generator=generator)
    reference_D = torch.randn(layout.size, generator=generator)
    values = []
    for least in (0, 2**60):
        monkeypatch.setattr(terms, "_LEAST_TO_KEEP", least)
        orders = match_networks(weights_ND, reference_D, layout=layout, groups=groups)
        values.append(
            objective(
                permute(weights_ND, layout, groups=groups, orders=orders),
                reference_D,
                layout=layout,
            )
        )
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-3)


def test_assignment_of_many_units_is_the_solvers_own():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(2, 300, 300, generator=generator)
    similarity[1] *= 1e-6
    similarity[1, :, :3] = 1.0  # columns far above the others
    ours = total(similarity, assign(similarity))
    for matrix, value in zip(similarity.double(), ours, strict=True):
        rows, columns = linear_sum_assignment(matrix.numpy(), maximize=True)
        assert float(value) == pytest.approx(float(matrix[rows, columns].sum()), rel=1e-6)


def test_signs_and_orders_are_found_together():
    """A tanh network whose units were reordered and flipped is found exactly."""
    from torch.func import functional_call

    from dwf.networks.config import MLPConfig

    widths = (9, 6, 5, 3)
    network = build_network(MLPConfig(widths, "tanh")).double()
    layout, groups = Layout.of(network), mlp_groups(widths)
    generator = torch.Generator().manual_seed(0)
    reference_D = torch.randn(layout.size, generator=generator)
    orders = random_orders(groups, 10, seed=3)
    for order in orders:
        flips = torch.rand(order.shape, generator=generator) < 0.5
        order[flips] = ~order[flips]
    shuffled_ND = permute(reference_D.repeat(10, 1), layout, groups=groups, orders=orders)
    inputs = torch.randn(4, 9, generator=generator, dtype=torch.float64)
    before, after = (
        functional_call(network, layout.unflatten(row.double()), (inputs,))
        for row in (reference_D, shuffled_ND[3])
    )
    torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    found = match_networks(shuffled_ND, reference_D, layout=layout, groups=groups, signs=True)
    assert torch.equal(
        permute(shuffled_ND, layout, groups=groups, orders=found),
        reference_D.expand_as(shuffled_ND),
    )
    weights_ND = torch.randn(10, layout.size, generator=generator)
    without, with_signs = (
        permute(
            weights_ND,
            layout,
            groups=groups,
            orders=match_networks(
                weights_ND, reference_D, layout=layout, groups=groups, signs=signs
            ),
        )
        @ reference_D
        for signs in (False, True)
    )
    assert (with_signs > without).all()


def test_a_reference_matches_itself():
    network, layout, groups = small_vit()
    reference_D = randomised(network, layout)
    found = match_networks(reference_D[None], reference_D, layout=layout, groups=groups)
    for order, same in zip(found, identity_orders(groups, 1), strict=True):
        assert torch.equal(order, same)
