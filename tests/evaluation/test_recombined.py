"""Null arms by their weights: whose first layer, which units, and functions that stay."""

import numpy as np
import pytest
import torch

from dwf.align.activation import training_images
from dwf.align.symmetry import symmetry_of
from dwf.evaluation.measure.novelty import Rows
from dwf.evaluation.measure.recombined import Recombiner
from dwf.evaluation.measure.units import UnitReader, layers_of
from dwf.networks.functional import run_networks


@pytest.fixture
def recombiner(zoo) -> Recombiner:
    network, rows = zoo.build_network(), zoo.rows("train", "last")
    groups = symmetry_of(network, zoo.layout, input_shape=zoo.input_shape)
    images_MX = training_images(zoo.load_data(), 400, seed=0)
    reader = UnitReader(
        network,
        zoo.layout,
        layers=layers_of(network, groups, images_MX=images_MX)[0],
        images_MX=images_MX,
        some_BD=zoo.read(rows),
    )
    return Recombiner(Rows(zoo, rows), network, groups=groups, reader=reader)


def made(recombiner, title, count=6, seed=0):
    (arm,) = [arm for arm in recombiner.arms(count, seed=seed) if arm.title == title]
    return np.concatenate([weights_BD for _, weights_BD in arm])


def logits(zoo, weights_ND, images_MX):
    state = zoo.layout.unflatten(torch.from_numpy(weights_ND))
    return run_networks(zoo.build_network(), state, inputs=images_MX)


def test_a_first_layer_is_of_one_and_the_second_fits_the_function_of_another(zoo, recombiner):
    made_BD, rows_ND = (
        made(recombiner, "first layer of another"),
        zoo.read(zoo.rows("train", "last")),
    )
    state, theirs = (zoo.layout.unflatten(torch.from_numpy(each)) for each in (made_BD, rows_ND))
    images_MX = recombiner.images_MX
    inputs_MI = images_MX.flatten(1).double()
    wanted_NMC = logits(zoo, rows_ND, images_MX).double()
    for b in range(len(made_BD)):
        first = state["layers.0.weight"][b]
        assert sum(torch.equal(first, other) for other in theirs["layers.0.weight"]) == 1
        hidden = (inputs_MI @ first.double().T + state["layers.0.bias"][b].double()).relu()
        given = torch.cat([hidden, torch.ones(len(hidden), 1)], 1)
        found = logits(zoo, made_BD[b : b + 1], images_MX)[0].double()
        # NumPy's least squares is the best that any second layer does: of one network it is met.
        best = [np.linalg.lstsq(given.numpy(), w.numpy(), rcond=None)[0] for w in wanted_NMC]
        least = [
            float((given @ torch.from_numpy(x) - w).norm())
            for x, w in zip(best, wanted_NMC, strict=True)
        ]
        reached = [float((found - w).norm()) for w in wanted_NMC]
        assert min(np.array(reached) / np.array(least)) < 1.01


def test_each_unit_is_one_of_the_training_networks(zoo, recombiner):
    made_BD, rows_ND = made(recombiner, "each unit of another"), zoo.read(zoo.rows("train", "last"))
    state, theirs = (zoo.layout.unflatten(torch.from_numpy(each)) for each in (made_BD, rows_ND))
    apart = torch.cdist(
        state["layers.0.weight"].double().flatten(0, 1),
        theirs["layers.0.weight"].double().flatten(0, 1),
    )
    owner_BU = (apart.argmin(1) // 8).view(-1, 8)
    assert (apart.amin(1) < 1e-6).all()
    assert min(len(set(owners.tolist())) for owners in owner_BU) > 3


def test_shuffled_copies_compute_the_same_up_to_a_shift(zoo, recombiner):
    made_BD, rows_ND = made(recombiner, "shuffled copies"), zoo.read(zoo.rows("train", "last"))
    found, own = (logits(zoo, each, recombiner.images_MX) for each in (made_BD, rows_ND))
    apart = (found[:, None] - own[None]).std(3).amax(2)  # over classes: a shift counts nothing
    assert (apart.amin(1) < 1e-3).all()
    shift_B = (found - own[apart.argmin(1)]).mean((1, 2))
    assert (shift_B.abs() > 1e-3).all()
    assert not (made_BD[:, None] == rows_ND[None]).all(2).any()


def test_arms_are_seeded_network_by_network(recombiner):
    for title in ("first layer of another", "each unit of another", "shuffled copies"):
        six = made(recombiner, title)
        np.testing.assert_array_equal(made(recombiner, title, count=3), six[:3])
        assert not np.array_equal(made(recombiner, title, seed=1), six)
