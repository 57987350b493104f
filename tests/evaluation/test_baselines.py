"""Baselines: averages against numpy's, moments of what is drawn against the networks' own."""

import numpy as np
import pytest

from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure.baselines import (
    FAMILIES,
    Drawn,
    average_of,
    interpolation_of,
    noise_around,
    pca_gaussian,
    per_weight_gaussian,
)
from dwf.evaluation.measure.novelty import moments

NUM, SIZE = 12, 30


def training_weights():
    rng = np.random.default_rng(5)
    return (rng.standard_normal((NUM, SIZE)) * rng.random(SIZE) + 3).astype(np.float32)


def draw(baseline, seed=0):
    training = [(np.arange(7), training_weights()[:7]), (np.arange(7, NUM), training_weights()[7:])]
    drawn = Drawn(baseline, training, deviation_D=moments(training).deviation_D, seed=seed)
    return np.concatenate([weights_BD for _, weights_BD in drawn])


def test_averages_are_exact():
    baselines = average_of(EvaluateConfig("z", averages=(2, 4, "all"), count=9), NUM)
    for baseline, k in zip(baselines, (2, 4, NUM), strict=True):
        picked = [np.flatnonzero(row_N) for row_N in baseline.mixture_SN]
        assert {len(one) for one in picked} == {k}
        exact = [training_weights()[one].astype(np.float64).mean(0) for one in picked]
        np.testing.assert_allclose(draw(baseline), exact, rtol=1e-6)
    assert [len(one.mixture_SN) for one in baselines] == [9, 9, 1]


def test_averages_of_more_networks_than_there_are_are_left_out():
    baselines = average_of(EvaluateConfig("z", averages=(2, 16)), NUM)
    assert [one.title for one in baselines] == ["average of 2"]


def test_interpolations_lie_at_uniform_places_between_two_networks():
    """The larger share is uniform from 1/2 to 1: mean 3/4, variance 1/48."""
    (baseline,) = interpolation_of(EvaluateConfig("z", count=4000), NUM)
    shares_S2 = np.sort(baseline.mixture_SN, 1)[:, -2:]
    np.testing.assert_allclose(shares_S2.sum(1), 1)
    assert (np.sort(baseline.mixture_SN, 1)[:, :-2] == 0).all()
    assert shares_S2[:, 1].mean() == pytest.approx(0.75, abs=4 * np.sqrt(1 / 48 / 4000))
    assert shares_S2[:, 1].var() == pytest.approx(1 / 48, rel=0.1)
    first, second = np.flatnonzero(baseline.mixture_SN[0])
    place, training_ND = baseline.mixture_SN[0, first], training_weights().astype(np.float64)
    wanted = place * training_ND[first] + (1 - place) * training_ND[second]
    np.testing.assert_allclose(draw(baseline)[0], wanted, rtol=1e-6)


def test_noise_around_one_of_very_many_networks_takes_no_square_of_their_number():
    """A square of float64 would take 8 TB."""
    (baseline,) = noise_around(EvaluateConfig("z", noise=(0.1,), count=3), 1_000_000)
    assert baseline.mixture_SN.shape == (3, 1_000_000)
    assert (baseline.mixture_SN.sum(1) == 1).all() and (baseline.mixture_SN.max(1) == 1).all()


def test_noise_around_a_network_has_the_wanted_scale():
    config = EvaluateConfig("z", noise=(0.1, 1.0), count=2000)
    for baseline, scale in zip(noise_around(config, NUM), (0.1, 1.0), strict=True):
        centres_SD = baseline.mixture_SN @ training_weights()
        noise_SD = (draw(baseline) - centres_SD) / training_weights().std(0, ddof=1)
        np.testing.assert_allclose(noise_SD.std(0), scale, rtol=0.08)
        assert abs(noise_SD.mean()) < 0.01 * scale
        assert len(np.unique(centres_SD, axis=0)) == NUM


def test_per_weight_gaussian_has_the_moments_of_each_weight_and_no_correlation():
    (baseline,) = per_weight_gaussian(EvaluateConfig("z", count=20000), NUM)
    samples_SD = draw(baseline)
    mean_D, deviation_D = training_weights().mean(0), training_weights().std(0, ddof=1)
    np.testing.assert_allclose((samples_SD.mean(0) - mean_D) / deviation_D, 0, atol=0.03)
    np.testing.assert_allclose(samples_SD.std(0), deviation_D, rtol=0.03)
    correlation_DD = np.corrcoef(samples_SD.T) - np.eye(SIZE)
    assert np.abs(correlation_DD).max() < 0.05


def test_pca_gaussian_has_the_networks_covariance_and_stays_in_their_span():
    (baseline,) = pca_gaussian(EvaluateConfig("z", count=40000), NUM)
    samples_SD = draw(baseline).astype(np.float64)
    exact_DD = np.cov(training_weights().astype(np.float64).T)
    found_DD = np.cov(samples_SD.T)
    assert np.linalg.norm(found_DD - exact_DD) < 0.03 * np.linalg.norm(exact_DD)
    centred_ND = training_weights() - training_weights().mean(0, dtype=np.float64)
    _, _, right = np.linalg.svd(centred_ND)
    outside = (samples_SD - training_weights().mean(0)) @ right[NUM - 1 :].T
    assert np.abs(outside).max() < 1e-5
    # In the principal axes the codes are independent, with the codes' own deviations.
    codes = (samples_SD - samples_SD.mean(0)) @ right[: NUM - 1].T
    exact = np.linalg.svd(centred_ND, compute_uv=False)[: NUM - 1] / np.sqrt(NUM - 1)
    np.testing.assert_allclose(codes.std(0), exact, rtol=0.03)


@pytest.mark.parametrize("make", [make for one in FAMILIES.values() for make in one.draws])
def test_seeded_network_by_network(make):
    config = EvaluateConfig("z", averages=(2,), noise=(0.1,), count=6)
    (baseline,) = make(config, NUM)
    np.testing.assert_array_equal(draw(baseline), draw(baseline))
    fewer = EvaluateConfig("z", averages=(2,), noise=(0.1,), count=3)
    (fewer_baseline,) = make(fewer, NUM)
    np.testing.assert_allclose(draw(fewer_baseline), draw(baseline)[:3], rtol=1e-6)
    other = EvaluateConfig("z", averages=(2,), noise=(0.1,), count=6, seed=1)
    (other_baseline,) = make(other, NUM)
    assert not np.array_equal(draw(other_baseline, seed=1), draw(baseline))


def test_blocks_do_not_change_the_networks(monkeypatch):
    (baseline,) = noise_around(EvaluateConfig("z", noise=(0.5,), count=7), NUM)
    whole = draw(baseline)
    monkeypatch.setattr("dwf.evaluation.measure.baselines._BLOCK_BYTES", 8 * SIZE * 2)
    np.testing.assert_allclose(draw(baseline), whole, rtol=1e-6)
