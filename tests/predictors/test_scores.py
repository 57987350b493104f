"""Scores against scipy and scikit-learn, on networks as they are and on draws of them."""

import time

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from dwf.predictors.scores import METRICS, Score, Yardstick, draw_networks, num_draws


def pair(count: int, *, ties: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True values on a grid of `ties` steps, and values near them, some of them equal."""
    random = np.random.default_rng(seed)
    truth = np.round(random.beta(8, 3, count) * ties) / ties
    told = truth + 0.1 * random.normal(size=count)
    told[: count // 5] = np.round(told[: count // 5], 1)
    return truth, told


def by_libraries(truth: np.ndarray, told: np.ndarray) -> dict[str, float]:
    return {
        "tau": kendalltau(truth, told).statistic,
        "spearman": spearmanr(truth, told).statistic,
        "r2": r2_score(truth, told),
        "mae": mean_absolute_error(truth, told),
        "rmse": root_mean_squared_error(truth, told),
    }


@pytest.mark.parametrize(("count", "ties"), [(3, 2), (40, 7), (600, 100), (300, 10**9)])
def test_every_draw_is_scored_as_libraries_score_it(count, ties):
    truth, told = pair(count, ties=ties)
    counts = draw_networks(np.arange(count), seed=1, draws=12)
    found = Yardstick(truth, counts).scores(told)
    assert tuple(found) == METRICS
    for draw, counts_N in enumerate(counts):
        places = np.repeat(np.arange(count), counts_N.astype(int))
        if len(np.unique(truth[places])) == 1 or len(np.unique(told[places])) == 1:
            continue
        for name, value in by_libraries(truth[places], told[places]).items():
            assert found[name][draw] == pytest.approx(value, abs=1e-9), (name, draw)


def test_draws_hold_as_many_networks_and_are_the_same_again():
    counts = draw_networks(np.arange(50), seed=3)
    assert counts.shape == (1001, 50)
    assert (counts.sum(1) == 50).all() and (counts[0] == 1).all()
    np.testing.assert_array_equal(counts, draw_networks(np.arange(50), seed=3))
    assert not np.array_equal(counts, draw_networks(np.arange(50), seed=4))
    assert [num_draws(n) for n in (10, 1000, 2000, 10_000)] == [1000, 1000, 500, 200]


def test_a_network_is_drawn_with_all_its_epochs():
    """Intervals of three equal rows of each network are those of one row of each."""
    truth, told = pair(80, ties=10**9)
    once = Yardstick(truth, draw_networks(np.arange(80), seed=0, draws=400))
    rows = np.repeat(np.random.default_rng(5).permutation(80), 3)
    counts = draw_networks(rows, seed=0, draws=400)
    assert (counts.reshape(-1, 80, 3) == counts.reshape(-1, 80, 3)[..., :1]).all()
    assert (counts.sum(1) == 240).all()
    thrice = Yardstick(truth[rows], counts)
    for name in ("r2", "mae"):  # of pairs, as tau is of, some are of a network with itself
        np.testing.assert_allclose(
            thrice.scores(told[rows])[name], once.scores(told)[name], rtol=1e-6
        )


def test_who_says_the_same_of_all_ranks_nothing_and_equal_truths_have_no_rank():
    truth, told = pair(30, ties=9)
    counts = draw_networks(np.arange(30), seed=0, draws=5)
    flat = Yardstick(truth, counts).scores(np.full(30, truth.mean()))
    assert flat["tau"].tolist() == [0] * 6 == flat["spearman"].tolist()
    assert flat["r2"][0] == pytest.approx(0)
    same = Yardstick(np.full(30, 0.1), counts).scores(told)
    assert all(np.isnan(same[name]).all() for name in ("tau", "spearman", "r2"))
    assert np.isfinite(same["mae"]).all()
    score = Score.of([same["tau"]])
    assert (score.mean, score.low, score.high, score.seeds) == (None, None, None, (None,))


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Of two normals with correlation rho, tau is 2 / pi arcsin(rho)."""
    rho, held = 0.6, 0
    for trial in range(100):
        random = np.random.default_rng(trial)
        truth, other = random.normal(size=(2, 120))
        told = rho * truth + np.sqrt(1 - rho**2) * other
        counts = draw_networks(np.arange(120), seed=trial, draws=300)
        score = Score.of([Yardstick(truth, counts).scores(told)["tau"]])
        held += score.low <= 2 / np.pi * np.arcsin(rho) <= score.high
    assert 87 <= held <= 100


def test_seeds_have_a_mean_a_spread_and_one_interval():
    truth, told = pair(200, ties=50)
    yardstick = Yardstick(truth, draw_networks(np.arange(200), seed=0))
    each = [yardstick.scores(told + shift)["mae"] for shift in (0.0, 1.0, 2.0)]
    score = Score.of(each)
    assert score.mean == pytest.approx(np.mean(score.seeds))
    assert score.std == pytest.approx(np.std(score.seeds, ddof=1))
    assert score.low < score.mean < score.high
    assert Score.of(each[:1]).std is None


@pytest.mark.slow
def test_ten_thousand_networks_take_seconds():
    truth, told = pair(10_000, ties=10_000)
    counts = draw_networks(np.arange(10_000), seed=0)
    began = time.process_time()
    found = Yardstick(truth, counts).scores(told)
    assert time.process_time() - began < 30  # two seconds on a quiet core
    assert found["tau"][0] == pytest.approx(kendalltau(truth, told).statistic, abs=1e-12)
