"""Ceilings against planted ties, known noise and closed forms."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kendalltau, norm
from sklearn.metrics import r2_score

from dwf.errors import ConfigError
from dwf.predictors.ceilings import (
    ceiling,
    could_be,
    in_better_half,
    noise_r2,
    own_luck,
    ties_ceiling,
)
from dwf.predictors.luck import luck_of


@pytest.mark.parametrize(
    "truth", [[1, 1, 2, 3, 3, 3], [0, 0, 0, 0, 1], [1, 2, 3, 4], [5, 5, 1, 1, 1, 2]]
)
def test_no_order_without_ties_does_better_than_the_ties_allow(truth):
    best = max(kendalltau(order, truth).statistic for order in permutations(range(len(truth))))
    assert ties_ceiling(np.array(truth)) == pytest.approx(best)


def test_ties_by_hand_and_of_equal_values():
    # 4 networks, 6 pairs, of which 2 are tied.
    assert ties_ceiling(np.array([0.5, 0.5, 0.7, 0.7])) == pytest.approx(np.sqrt(4 / 6))
    assert np.isnan(ties_ceiling(np.full(5, 0.3)))
    found = ceiling(np.full(5, 0.3), 100)
    assert (found.ties, found.noise, found.tau, found.r2) == (None, None, None, None)


@pytest.mark.parametrize(("images", "a", "b"), [(100, 40, 10), (500, 8, 3), (1000, 60, 2)])
def test_the_ceiling_of_noise_is_what_a_real_oracle_reaches(images, a, b):
    """Expected shares are known here, as they never are: the estimate needs the labels alone."""
    random = np.random.default_rng(0)
    expected = random.beta(a, b, 3000)
    labels = random.binomial(images, expected) / images
    found = ceiling(labels, images, seed=1)
    assert found.tau == pytest.approx(kendalltau(expected, labels).statistic, abs=0.015)
    assert found.r2 == pytest.approx(r2_score(labels, expected), abs=0.03)
    assert found.tau == pytest.approx(found.ties * found.noise, rel=1e-6)
    half = in_better_half(labels)
    best = ceiling(labels, images, better_half=True, seed=1)
    assert best.tau == pytest.approx(kendalltau(expected[half], labels[half]).statistic, abs=0.04)
    assert best.r2 == pytest.approx(r2_score(labels[half], expected[half]), abs=0.08)
    assert best.tau < found.tau


def test_the_ceiling_of_r2_is_its_closed_form():
    """Half of the networks expect 0.4, half 0.6: variance 0.01, and luck 0.24 / m."""
    random = np.random.default_rng(0)
    expected = np.repeat([0.4, 0.6], 20_000)
    for images in (10, 100, 2000):
        labels = random.binomial(images, expected) / images
        assert noise_r2(labels, own_luck(labels, images)) == pytest.approx(
            0.01 / (0.01 + 0.24 / images), abs=0.02
        )


@pytest.mark.parametrize("alike", [0.5, 3.0])
def test_of_shared_images_it_is_what_a_real_oracle_reaches(alike):
    """A network has an image right where its ability, the image and chance say so."""
    random = np.random.default_rng(0)
    images, ability = 2000, 1.5 + 0.05 * random.normal(size=1500)
    ease = alike * random.normal(size=images)
    right = ability[:, None] + ease + random.normal(size=(len(ability), images)) > 0
    expected, labels = norm.cdf(ability / np.hypot(alike, 1)), right.mean(1)
    found = ceiling(labels, images, luck_SN=luck_of(right), seed=1)
    assert found.luck == "shared"
    assert found.tau == pytest.approx(kendalltau(expected, labels).statistic, abs=0.03)
    assert found.r2 == pytest.approx(np.corrcoef(expected, labels)[0, 1] ** 2, abs=0.05)
    of_own = ceiling(labels, images, seed=1)
    assert of_own.luck == "own" and of_own.tau < found.tau
    if alike > 1:
        assert of_own.tau < found.tau - 0.2, "networks that share their luck hardly move"


def test_the_luck_of_images_has_the_variance_of_a_share():
    right = np.random.default_rng(0).random((300, 400)) < 0.8
    moved = luck_of(right)
    assert moved.shape == (100, 300) and moved.dtype == np.float32
    assert moved.var(0).mean() == pytest.approx(0.8 * 0.2 / 400, rel=0.05)
    np.testing.assert_array_equal(moved[:, 7:9], luck_of(right[7:9]))


def test_luck_alone_has_no_ceiling_above_chance():
    labels = np.random.default_rng(0).binomial(200, np.full(2000, 0.7)) / 200
    found = ceiling(labels, 200)
    assert found.r2 < 0.08
    assert found.tau < 0.25  # of 2,000 networks variance is known to a few percent


def test_expected_shares_have_the_variance_of_labels_less_that_of_luck():
    random = np.random.default_rng(0)
    expected = random.beta(40, 10, 5000)
    labels = random.binomial(100, expected) / 100
    drawn = could_be(labels, 100, luck=own_luck(labels, 100), random=random)
    assert drawn.std() == pytest.approx(expected.std(), rel=0.05)
    assert len(np.unique(drawn)) == 5000


def test_many_images_leave_the_ties_alone_and_other_numbers_have_no_luck():
    labels = np.random.default_rng(0).beta(8, 3, 400)
    assert ceiling(labels, 10**7).noise == pytest.approx(1, abs=0.005)
    labels = np.round(labels, 2)
    other = ceiling(10 * labels)
    assert other.tau == other.ties == pytest.approx(ties_ceiling(labels))
    assert other.r2 is None
    with pytest.raises(ConfigError, match=r"100 images, values from .* give None for others"):
        ceiling(10 * labels, 100)
