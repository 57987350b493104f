"""Limits are percentiles as written, of every measure; what is not finite never passes."""

from dataclasses import replace

import numpy as np
import pytest

from dwf.evaluation.measure.limits import Limits, Novelty

TESTS = ("accurate", "distant", "unlike", "new_units")


def measures(num, seed=0):
    stream = np.random.default_rng(seed)
    return Novelty(stream.random(num), stream.random(num), units_SL=stream.random((num, 2)))


def at(limits: Limits, **changes) -> tuple[np.ndarray, Novelty]:
    """Return accuracy and measures of a network that lies on the limits, but for changes."""
    values = {
        "accuracy": limits.accuracy,
        "distance": limits.distance,
        "behaviour": limits.behaviour,
        "first": limits.units[0],
        "second": limits.units[1],
    } | changes
    accuracy, distance, behaviour, *units = (np.array([value]) for value in values.values())
    return accuracy, Novelty(distance, behaviour, units_SL=np.stack(units, 1))


def test_limits_are_the_written_ones():
    accuracy_N, found = np.random.default_rng(1).random(101), measures(101)
    limits = Limits.of(accuracy_N, found, layers=("a", "b"))
    assert limits.accuracy == pytest.approx(accuracy_N.mean() - 2 * accuracy_N.std(ddof=1))
    each = (found.distance_S, found.behaviour_S, *found.units_SL.T)
    wanted = [np.sort(values)[1] for values in each]  # the 1st of 100 steps
    assert [limits.distance, limits.behaviour, *limits.units] == wanted
    medians = [np.sort(values)[50] for values in each]
    assert [limits.unit, limits.behaviour_unit, *limits.units_unit] == medians
    assert Limits.from_json(limits.to_json()) == limits
    assert limits.passed(*at(limits))["good_and_novel"].all()
    tests = dict(
        zip(
            ("accuracy", "distance", "behaviour", "first", "second"),
            [*TESTS, "new_units"],
            strict=True,
        )
    )
    for name, test in tests.items():
        value = {"first": limits.units[0], "second": limits.units[1]}.get(name)
        value = getattr(limits, name) if value is None else value
        passed = limits.passed(*at(limits, **{name: value - 1e-9}))
        assert not passed["good_and_novel"].any() and not passed[test].any()
        assert all(passed[other].all() for other in TESTS if other != test)


def test_numbers_that_are_not_finite_never_pass():
    limits = Limits.of(np.full(9, 0.5), measures(9), layers=("a", "b"))
    for name in ("accuracy", "distance", "behaviour", "first", "second"):
        assert not limits.passed(*at(limits, **{name: np.nan}))["good_and_novel"].any()


def test_of_a_single_run_nothing_is_novel():
    limits = Limits.of(np.full(9, 0.5), measures(9), layers=("a", "b"), single_run=True)
    assert limits.single_run and limits.units == (None, None) and limits.unit > 0
    passed = limits.passed(np.ones(9), measures(9, seed=1))
    assert not passed["good_and_novel"].any() and passed["accurate"].all()
    kinds = limits.kinds(measures(9), reach_S=np.ones(9))
    assert kinds["copy"].any(), "near-copies are still called so"


def test_a_measure_that_is_zero_among_training_networks_tests_nothing():
    found = replace(measures(200), units_SL=np.zeros((200, 2)))
    limits = Limits.of(np.full(200, 0.5), found, layers=("a", "b"))
    assert limits.without_effect == ("units of a", "units of b")
    kinds = limits.kinds(found, reach_S=np.ones(200))
    assert not kinds["copy"][found.distance_S > limits.unit].all(), "0 / 0 makes no copy"
