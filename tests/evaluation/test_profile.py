"""A profile's numbers against closed forms, and in a whole report against loops over networks."""

import numpy as np
import pytest

from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure.limits import Limits, Novelty
from dwf.evaluation.measure.novelty import disagreement
from dwf.evaluation.measure.profile import (
    MOST_AXES,
    accuracy_bars,
    effective_rank,
    num_axes,
    profile_of,
    spread_along,
)
from dwf.evaluation.stage import evaluate
from dwf.networks.functional import score_networks


@pytest.mark.parametrize("dimensions", [1, 2, 7])
def test_the_effective_rank_of_a_spread_that_is_alike_is_its_dimensions(dimensions):
    """A place on each side along every axis, turned by any rotation, moved anywhere."""
    stream = np.random.default_rng(dimensions)
    turned, _ = np.linalg.qr(stream.standard_normal((9, 9)))
    places_SC = np.vstack([np.eye(9)[:dimensions], -np.eye(9)[:dimensions]]) @ turned + 5
    assert effective_rank(places_SC) == pytest.approx(dimensions)


def test_the_effective_rank_of_two_variances_is_the_exponential_of_their_entropy():
    places_SC = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])  # variances as 9 to 1
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert effective_rank(places_SC) == pytest.approx(np.exp(entropy))


def test_what_has_no_spread_has_no_effective_rank():
    for places_SC in (np.ones((5, 3)), np.ones((1, 3)), np.array([[np.inf, 0], [0, 0]])):
        assert np.isnan(effective_rank(places_SC))


def test_spread_is_the_ratio_of_deviations_along_each_axis():
    zoo_NC = np.random.default_rng(0).standard_normal((50, 3)) * [2, 1, 0]
    found = spread_along(zoo_NC[:10] * 3 + 1, zoo_NC)
    wanted = 3 * zoo_NC[:10].std(0, ddof=1)[:2] / zoo_NC.std(0, ddof=1)[:2]
    assert found[:2] == pytest.approx(wanted) and found[2] is None
    assert spread_along(zoo_NC[:1], zoo_NC) == [None] * 3


def test_axes_are_fewer_of_few_networks_and_of_large_ones():
    assert num_axes(1000, 1000) == MOST_AXES
    assert num_axes(10, 1000) == 9 and num_axes(1000, 5) == 5
    assert num_axes(1000, 11_000_000) == 2, "two for the map, however large they are"


def test_disagreement_equals_a_loop_over_images():
    stream = np.random.default_rng(1)
    answers_SM, answers_NM = stream.integers(-1, 3, (4, 20)), stream.integers(-1, 3, (6, 20))
    nearest_S = np.array([5, 0, 0, 2])
    wanted = [
        sum(int(answers_SM[s][m] != answers_NM[n][m]) for m in range(20)) / 20
        for s, n in enumerate(nearest_S)
    ]
    assert disagreement(answers_SM, answers_NM, nearest_S=nearest_S).tolist() == wanted
    assert (disagreement(answers_NM[nearest_S], answers_NM, nearest_S=nearest_S) == 0).all()


def test_shares_under_other_limits_equal_a_loop_over_networks():
    stream = np.random.default_rng(2)
    training = Novelty(stream.random(99) + 1, stream.random(99), units_SL=stream.random((99, 1)))
    accuracy_N = stream.normal(0.9, 0.02, 99)
    limits = Limits.of(accuracy_N, training, layers=("a",))
    found = Novelty(4 * stream.random(50), stream.random(50), units_SL=stream.random((50, 1)))
    accuracy_S, places_SC = stream.normal(0.88, 0.05, 50), stream.standard_normal((50, 4))
    profile = profile_of(
        accuracy_S=accuracy_S,
        novelty=found,
        places_SC=places_SC,
        disagreement_S=np.full(50, 0.25),
        limits=limits,
        bars=accuracy_bars(accuracy_N, 0.91),
        zoo_places_NC=places_SC,
        zoo_disagreement_N=np.array([0.1, 0.3]),
    )
    for ratio in (1, 1.5, 2, 3):
        good = [a >= limits.accuracy for a in accuracy_S]
        far = [d / limits.unit >= ratio for d in found.distance_S]
        wanted = np.mean([a and b for a, b in zip(good, far, strict=True)])
        assert profile["far"][f"{ratio:g}"] == wanted
    novel = [
        d >= limits.distance and b >= limits.behaviour and u >= limits.units[0]
        for d, b, u in zip(found.distance_S, found.behaviour_S, found.units_SL[:, 0], strict=True)
    ]
    mean, std = accuracy_N.mean(), accuracy_N.std(ddof=1)
    bars = {"mean - 1 std": mean - std, "mean - 2 std": mean - 2 * std}
    bars |= {"mean - 4 std": mean - 4 * std, "fixed": 0.91}
    for name, bar in bars.items():
        told = profile["bars"][name]
        wanted = np.mean([n and a >= bar for n, a in zip(novel, accuracy_S, strict=True)])
        assert told == {"accuracy": pytest.approx(bar), "share": wanted}
    passed = limits.passed(accuracy_S, found)["good_and_novel"]
    assert profile["bars"]["mean - 2 std"]["share"] == passed.mean(), "the rule of good and novel"
    assert profile["disagreement"] == {"set": 0.25, "zoo": 0.2}
    assert profile["effective_rank"]["set"] == pytest.approx(profile["effective_rank"]["zoo"])


def test_a_report_has_the_profile_of_every_set(zoo, write_samples, no_figures):
    """Copies agree with their originals wholly; other networks answer as scoring says."""
    import torch

    weights_ND = zoo.read(zoo.rows("train", "last"))
    fresh_SD = zoo.read(zoo.rows("test", "last"))
    samples = [write_samples("copies", weights_ND[:6]), write_samples("fresh", fresh_SD)]
    names = tuple(one.name for one in samples)
    config = EvaluateConfig("z", names, noise=(0.1,), averages=(2,), count=8, bar=0.5)
    report = evaluate(config, zoo.path.parent.parent, name="r")
    by_title = {one.title: one for one in report.sets}
    assert all("profile" in one.summary for one in report.sets)
    copies, fresh = by_title["copies"], by_title["fresh"]
    assert copies.networks["disagreement"] == [0] * 6
    assert set(copies.summary["profile"]["far"].values()) == {0.0}
    data, network = zoo.load_data(), zoo.build_network()
    answers = [
        score_networks(
            network,
            zoo.layout.unflatten(torch.from_numpy(rows_ND)),
            data=data,
            part=data.test,
            keep_answers=True,
        ).answers_NM
        for rows_ND in (fresh_SD, weights_ND)
    ]
    nearest = [number - 100 for number in fresh.networks["nearest"]]
    wanted = [(mine != answers[1][n]).mean() for mine, n in zip(answers[0], nearest, strict=True)]
    assert fresh.networks["disagreement"] == pytest.approx(wanted)
    originals = by_title["originals (training)"].summary["profile"]
    assert originals["disagreement"]["set"] == originals["disagreement"]["zoo"]
    assert originals["spread"] == pytest.approx([1.0] * len(originals["spread"]))
    assert originals["effective_rank"]["set"] == pytest.approx(originals["effective_rank"]["zoo"])
    assert fresh.summary["profile"]["bars"]["fixed"]["accuracy"] == 0.5
    assert len(report.profile_table) == len(report.sets)
    assert "## Under other limits" in report.markdown()
