"""Weight matching against planted permutations, brute force and the textbook loop."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from dwf.align.groups import Group, Member, permute, random_orders
from dwf.align.matching.assignment import assign
from dwf.align.matching.matcher import match_networks
from dwf.align.symmetry import symmetry_of
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network, run_networks
from dwf.randomness import numpy_stream, threads
from dwf.zoo.layout import Entry, Layout

DEPTHS = [(12, 9, 4), (12, 9, 7, 4), (12, 9, 7, 8, 4)]


def architecture(widths, activation="relu"):
    network = build_network(MLPConfig(tuple(widths), activation))
    layout = Layout.of(network)
    return network, layout, symmetry_of(network, layout, input_shape=widths[:1])


def random_networks(count, layout, seed=0):
    return torch.randn(count, layout.size, generator=torch.Generator().manual_seed(seed))


def objective(weights_ND, reference_D):
    return weights_ND.double() @ reference_D.double()


def match_textbook(weights_D, reference_D, layout, groups, seed):
    """Algorithm 1 for one network, as the paper writes it, with dense permutation matrices."""
    network = {n: t.double().numpy() for n, t in layout.unflatten(weights_D).items()}
    reference = {n: t.double().numpy() for n, t in layout.unflatten(reference_D).items()}
    matrices = [np.eye(group.size) for group in groups]
    visits = numpy_stream(seed, "weight matching")
    progress = True
    while progress:
        progress = False
        for g in visits.permutation(len(groups)):
            similarity = np.zeros((groups[g].size,) * 2)
            for name, axis in ((m.name, m.axis) for m in groups[g].members):
                tensor = network[name]
                for h, group in enumerate(groups):
                    for other in group.members:
                        if h != g and other.name == name:
                            moved = np.tensordot(matrices[h], tensor, (1, other.axis))
                            tensor = np.moveaxis(moved, 0, other.axis)
                a = np.moveaxis(reference[name], axis, 0).reshape(groups[g].size, -1)
                b = np.moveaxis(tensor, axis, 0).reshape(groups[g].size, -1)
                similarity += a @ b.T
            _, columns = linear_sum_assignment(similarity, maximize=True)
            found = np.eye(groups[g].size)[columns]
            if (similarity * found).sum() > (similarity * matrices[g]).sum() + 1e-9:
                matrices[g], progress = found, True
    orders = [torch.from_numpy(matrix.argmax(1)[None]) for matrix in matrices]
    return permute(weights_D[None], layout, groups=groups, orders=orders)[0]


@pytest.mark.parametrize("widths", DEPTHS)
def test_undoes_planted_permutations_exactly(widths):
    _, layout, groups = architecture(widths)
    reference_D = random_networks(1, layout)[0]
    shuffled_ND = permute(
        reference_D.repeat(20, 1), layout, groups=groups, orders=random_orders(groups, 20, seed=1)
    )
    orders = match_networks(shuffled_ND, reference_D, layout=layout, groups=groups)
    found_ND = permute(shuffled_ND, layout, groups=groups, orders=orders)
    assert torch.equal(found_ND, reference_D.expand_as(found_ND))


@pytest.mark.parametrize("widths", DEPTHS)
def test_finds_planted_permutations_of_similar_networks(widths):
    _, layout, groups = architecture(widths)
    base_ND = random_networks(1, layout) + 0.02 * random_networks(8, layout, seed=1)
    planted = random_orders(groups, 8, seed=2)
    shuffled_ND = permute(base_ND, layout, groups=groups, orders=planted)
    orders = match_networks(shuffled_ND, base_ND[0], layout=layout, groups=groups)
    close_N = (permute(shuffled_ND, layout, groups=groups, orders=orders) - base_ND).abs().amax(
        1
    ) == 0
    assert close_N.all()


@pytest.mark.parametrize("widths", DEPTHS)
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_permuted_networks_compute_the_same_function(widths, activation):
    network, layout, groups = architecture(widths, activation)
    weights_ND = random_networks(6, layout).double()
    inputs = torch.randn(
        32, widths[0], dtype=torch.float64, generator=torch.Generator().manual_seed(9)
    )
    permuted_ND = permute(
        weights_ND, layout, groups=groups, orders=random_orders(groups, 6, seed=0)
    )
    assert not torch.equal(permuted_ND, weights_ND)
    before = run_networks(network.double(), layout.unflatten(weights_ND), inputs=inputs)
    after = run_networks(network.double(), layout.unflatten(permuted_ND), inputs=inputs)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    singles = [t.float() for t in (weights_ND, permuted_ND)]
    before, after = (
        run_networks(network, layout.unflatten(t), inputs=inputs.float()) for t in singles
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_one_hidden_layer_is_as_good_as_every_order_tried():
    _, layout, groups = architecture((3, 5, 2))
    weights_ND, reference_D = random_networks(6, layout), random_networks(1, layout, seed=1)[0]
    orders = match_networks(weights_ND, reference_D, layout=layout, groups=groups)
    found_N = objective(permute(weights_ND, layout, groups=groups, orders=orders), reference_D)
    every = torch.tensor(list(itertools.permutations(range(5))))
    best_N = torch.stack(
        [
            objective(
                permute(weights_D.repeat(len(every), 1), layout, groups=groups, orders=[every]),
                reference_D,
            ).max()
            for weights_D in weights_ND
        ]
    )
    torch.testing.assert_close(found_N, best_N)


@pytest.mark.parametrize("start", ["ties", "identity"])
def test_no_sweep_lowers_the_objective(start):
    _, layout, groups = architecture(DEPTHS[2])
    weights_ND, reference_D = random_networks(10, layout), random_networks(1, layout, seed=1)[0]
    values = [objective(weights_ND, reference_D)]
    for sweeps in range(1, 8):  # the same seed: the first sweeps are the same
        orders = match_networks(
            weights_ND, reference_D, layout=layout, groups=groups, max_sweeps=sweeps, start=start
        )
        values.append(
            objective(permute(weights_ND, layout, groups=groups, orders=orders), reference_D)
        )
    gains = torch.stack(values).diff(dim=0)
    assert (gains >= 0).all()
    assert (gains[0] > 0).all()
    assert (gains[-1] == 0).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_is_as_good_as_the_textbook_loop(seed):
    _, layout, groups = architecture((20, 12, 10, 12, 5))
    weights_ND, reference_D = random_networks(8, layout), random_networks(1, layout, seed=1)[0]
    orders = match_networks(
        weights_ND, reference_D, layout=layout, groups=groups, seed=seed, start="identity"
    )
    ours_N = objective(permute(weights_ND, layout, groups=groups, orders=orders), reference_D)
    theirs_ND = torch.stack(
        [
            match_textbook(w_D, reference_D, layout=layout, groups=groups, seed=seed)
            for w_D in weights_ND
        ]
    )
    torch.testing.assert_close(ours_N, objective(theirs_ND, reference_D))


def test_tensors_of_any_rank_and_number_of_groups_are_matched():
    shapes = {"core": (4, 3, 2, 5), "in": (4, 3, 3), "loose": (2,), "out": (6, 5)}
    entries, offset = [], 0
    for name, shape in shapes.items():
        entries.append(Entry(name, shape, offset=offset, role="weight"))
        offset = entries[-1].stop
    layout = Layout(tuple(entries))
    groups = (
        Group(4, (Member("core", 0), Member("in", 0))),
        Group(3, (Member("core", 1),)),
        Group(5, (Member("core", 3), Member("out", 1))),
    )
    weights_ND, reference_D = random_networks(12, layout), random_networks(1, layout, seed=1)[0]
    orders = match_networks(weights_ND, reference_D, layout=layout, groups=groups, start="identity")
    ours_N = objective(permute(weights_ND, layout, groups=groups, orders=orders), reference_D)
    theirs_ND = torch.stack(
        [
            match_textbook(w_D, reference_D, layout=layout, groups=groups, seed=0)
            for w_D in weights_ND
        ]
    )
    torch.testing.assert_close(ours_N, objective(theirs_ND, reference_D))


def test_same_seed_same_orders_alone_or_together():
    _, layout, groups = architecture(DEPTHS[2])
    weights_ND, reference_D = random_networks(9, layout), random_networks(1, layout, seed=1)[0]
    first = match_networks(weights_ND, reference_D, layout=layout, groups=groups, seed=3)
    again = match_networks(weights_ND, reference_D, layout=layout, groups=groups, seed=3)
    alone = [
        torch.cat(o)
        for o in zip(
            *(
                match_networks(w[None], reference_D, layout=layout, groups=groups, seed=3)
                for w in weights_ND
            ),
            strict=True,
        )
    ]
    for ours, same, single in zip(first, again, alone, strict=True):
        assert torch.equal(ours, same)
        assert torch.equal(ours, single)


def test_without_hidden_units_nothing_moves():
    _, layout, groups = architecture((4, 3))
    weights_ND = random_networks(2, layout)
    assert match_networks(weights_ND, weights_ND[0], layout=layout, groups=groups) == []
    assert torch.equal(permute(weights_ND, layout, groups=groups, orders=[]), weights_ND)


def test_assignments_do_not_depend_on_threads():
    similarity_AUU = torch.randn(3, 200, 200, generator=torch.Generator().manual_seed(0))
    alone = assign(similarity_AUU)
    with threads(2):
        assert torch.equal(assign(similarity_AUU), alone)
        assert torch.get_num_threads() == 2
    for similarity_UU, order_U in zip(similarity_AUU, alone, strict=True):
        expected = linear_sum_assignment(similarity_UU.numpy(), maximize=True)[1]
        assert order_U.tolist() == expected.tolist()
