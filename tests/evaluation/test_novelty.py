"""Distances and overlaps against brute force, axes against an SVD."""

import numpy as np
import pytest

from dwf.evaluation.measure.novelty import (
    moments,
    nearest,
    overlap,
    principal_axes,
)
from dwf.zoo.moments import Moments


def blocks(weights_ND, size):
    starts = range(0, len(weights_ND), size)
    return [
        (np.arange(i, min(i + size, len(weights_ND))), weights_ND[i : i + size]) for i in starts
    ]


def random_weights(num, seed, size=37):
    return np.random.default_rng(seed).standard_normal((num, size)).astype(np.float32)


def brute_force(weights_SD, training_ND):
    differences = weights_SD[:, None].astype(np.float64) - training_ND[None]
    return np.sqrt((differences**2).sum(2))


@pytest.mark.parametrize("size", [1, 4, 50])
def test_nearest_equals_brute_force_in_any_blocks(size):
    weights_SD, training_ND = random_weights(13, 0), random_weights(21, 1)
    distance_S, position_S = nearest(weights_SD, blocks(training_ND, size))
    all_SN = brute_force(weights_SD, training_ND)
    np.testing.assert_array_equal(position_S, all_SN.argmin(1))
    np.testing.assert_allclose(distance_S, all_SN.min(1), rtol=1e-14)


@pytest.mark.parametrize("size", [1, 6, 50])
def test_leave_one_out_equals_brute_force(size):
    training_ND = random_weights(21, 1)
    all_NN = brute_force(training_ND, training_ND)
    np.fill_diagonal(all_NN, np.inf)
    distance_N, position_N = nearest(training_ND, blocks(training_ND, size), own_B=np.arange(21))
    np.testing.assert_array_equal(position_N, all_NN.argmin(1))
    np.testing.assert_allclose(distance_N, all_NN.min(1), rtol=1e-14)


def test_near_copies_far_from_zero_do_not_cancel():
    training_ND = random_weights(5, 0) + 1000  # in float32 |a|^2 + |b|^2 - 2ab would be noise
    copies_ND = training_ND.copy()
    copies_ND[1, 3] += 0.125
    distance_N, position_N = nearest(copies_ND, blocks(training_ND, 2))
    np.testing.assert_array_equal(distance_N, [0, 0.125, 0, 0, 0])
    np.testing.assert_array_equal(position_N, np.arange(5))


def test_a_network_is_left_out_with_all_its_rows():
    training_ND, labels_N = random_weights(20, 1), np.repeat(np.arange(5), 4)
    all_NN = brute_force(training_ND, training_ND)
    all_NN[labels_N[:, None] == labels_N] = np.inf
    found_N, position_N = nearest(
        training_ND, blocks(training_ND, 3), own_B=labels_N, labels_N=labels_N
    )
    np.testing.assert_array_equal(position_N, all_NN.argmin(1))
    np.testing.assert_allclose(found_N, all_NN.min(1), rtol=1e-14)


def test_a_twin_among_the_training_networks_is_at_distance_zero():
    training_ND = random_weights(6, 0)
    training_ND[4] = training_ND[2]
    distance_N, position_N = nearest(training_ND, blocks(training_ND, 2), own_B=np.arange(6))
    assert distance_N[2] == distance_N[4] == 0
    assert (position_N[2], position_N[4]) == (4, 2)


def test_overlap_equals_sets_of_wrong_answers():
    rng = np.random.default_rng(0)
    wrong_SM, wrong_NM = rng.random((7, 50)) < 0.3, rng.random((9, 50)) < 0.3
    wrong_SM[0], wrong_NM[2] = False, False
    nearest_S = rng.integers(9, size=7)
    nearest_S[0] = 2

    def share(mine, theirs):
        mine, theirs = set(np.flatnonzero(mine)), set(np.flatnonzero(theirs))
        return len(mine & theirs) / len(mine | theirs) if mine | theirs else 1.0

    all_SN = np.array([[share(mine, theirs) for theirs in wrong_NM] for mine in wrong_SM])
    with_nearest_S, highest_S = overlap(wrong_SM, wrong_NM, nearest_S=nearest_S)
    np.testing.assert_allclose(with_nearest_S, all_SN[np.arange(7), nearest_S], rtol=1e-15)
    np.testing.assert_allclose(highest_S, all_SN.max(1), rtol=1e-15)
    assert with_nearest_S[0] == 1  # neither makes a mistake


def test_highest_overlap_leaves_a_network_itself_out():
    wrong_NM = np.random.default_rng(0).random((8, 60)) < 0.3
    _, with_self_N = overlap(wrong_NM, wrong_NM, nearest_S=np.arange(8))
    _, without_N = overlap(wrong_NM, wrong_NM, nearest_S=np.arange(8), own_S=np.arange(8))
    assert (with_self_N == 1).all() and (without_N < 1).all()


@pytest.mark.parametrize("size", [1, 5, 40])
def test_moments_equal_numpy_in_float64(size):
    weights_ND = random_weights(23, 3) * 1e-3 + 500
    found = moments(blocks(weights_ND, size))
    exact_ND = weights_ND.astype(np.float64)
    np.testing.assert_allclose(found.mean_D, exact_ND.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found.deviation_D, exact_ND.std(0, ddof=1), rtol=1e-9)
    centred_ND = exact_ND - exact_ND.mean(0)
    rms = np.sqrt((centred_ND**2).sum() / 22)
    assert found.spread == pytest.approx(rms, rel=1e-9)


def test_one_network_has_no_spread():
    one = Moments()
    one.add(random_weights(1, 0))
    assert np.isnan(one.spread)


def test_principal_axes_equal_a_singular_value_decomposition():
    weights_ND = random_weights(15, 0) * np.linspace(3, 1, 37, dtype=np.float32) + 2
    axes_CD, share_C = principal_axes(blocks(weights_ND, 4), 3)
    centred_ND = weights_ND - weights_ND.mean(0, dtype=np.float64)
    _, values, right = np.linalg.svd(centred_ND, full_matrices=False)
    np.testing.assert_allclose(np.abs((axes_CD * right[:3]).sum(1)), 1, rtol=1e-9)
    np.testing.assert_allclose(share_C, values[:3] ** 2 / (values**2).sum(), rtol=1e-9)
    places_NC = centred_ND @ axes_CD.T
    assert (places_NC[np.abs(places_NC).argmax(0), range(3)] > 0).all()
