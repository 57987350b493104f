"""Targets: maps from values of properties to what is learnt, against closed forms and SciPy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from dwf.errors import ConfigError, Idle
from dwf.predictors.config import WeightNetConfig
from dwf.predictors.head_config import BoostingConfig, PerceptronConfig, RidgeConfig
from dwf.predictors.heads import Labelled, Table, make_head
from dwf.predictors.targets import Deviations, Ranks, Shares
from dwf.run_folder import RunPart, load_state, save_state
from dwf.training.config import LoopComputeConfig, LoopConfig

RNG = np.random.default_rng(0)
VALUES = np.stack([RNG.normal(size=60), RNG.integers(0, 7, 60) / 10, RNG.exponential(size=60)], 1)
LOOP = LoopConfig(steps=40, batch_size=16, compute=LoopComputeConfig(device="cpu", threads=1))
HEADS = [
    RidgeConfig(),
    BoostingConfig(trees=40, leaves=4, least_in_leaf=5),
    PerceptronConfig(width=16, depth=1, training=LOOP),
]


def test_ranks_are_normal_scores_of_mean_ranks():
    found = Ranks.of(VALUES).apply(VALUES)
    shares = (rankdata(VALUES, axis=0) - 0.5) / len(VALUES)  # of ties, their mean rank
    np.testing.assert_allclose(found, norm.ppf(shares), atol=1e-12)
    np.testing.assert_allclose(found.mean(0), 0, atol=0.15)


@pytest.mark.parametrize("kind", [Deviations, Ranks])
def test_the_inverse_gives_values_back_and_keeps_their_order_beyond_the_ends(kind):
    targets = kind.of(VALUES)
    far = np.linspace(-9, 9, 400)[:, None].repeat(3, 1)
    values = targets.undo(far)
    assert (np.diff(values, axis=0) > 0).all()
    np.testing.assert_allclose(targets.apply(values), far, atol=1e-6)
    np.testing.assert_allclose(targets.undo(targets.apply(VALUES)), VALUES, atol=1e-12)


def test_beyond_the_largest_rank_a_deviation_is_a_score():
    targets, std = Ranks.of(VALUES), VALUES.std(0)
    ends = targets.apply(np.stack([VALUES.max(0), VALUES.max(0) + 2 * std]))
    np.testing.assert_allclose(ends[1] - ends[0], 2.0)


@pytest.mark.parametrize("kind", [Deviations, Ranks])
def test_a_constant_is_told_by_its_value(kind):
    targets = kind.of(np.full((5, 1), 0.3))
    np.testing.assert_allclose(targets.apply(np.full((2, 1), 0.3)), 0.0)
    np.testing.assert_allclose(targets.undo(np.zeros((2, 1))), 0.3)


def test_shares_come_from_logits_and_others_are_refused():
    told = np.array([[0.0], [np.log(3)]])
    np.testing.assert_allclose(Shares.of(np.array([[0.5]])).undo(told), [[0.5], [0.75]])
    with pytest.raises(ConfigError, match=r"from 0 to 1, .* reach from -0.2 to 1: set mse"):
        Shares.of(np.array([[-0.2], [1.0]]))


def labelled(seed: int) -> Labelled:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(200, 8))
    line = features @ np.random.default_rng(9).normal(size=(8, 2))
    return Labelled(Table(features), np.stack([line[:, 0], np.exp(3 * line[:, 1])], 1))


@pytest.mark.parametrize("config", HEADS, ids=lambda each: each.kind)
def test_what_is_learnt_of_ranks_knows_of_no_scale(config, tmp_path):
    """Heads of ranks order networks alike whether told a property or its third power."""
    train, val = labelled(0), labelled(1)
    cubes = [Labelled(some.features, some.values_NP**3) for some in (train, val)]
    config = replace(config, targets="ranks")
    orders = []
    for name, (told, held_out) in (("plain", (train, val)), ("cubes", cubes)):
        head = make_head(config)
        head.fit(told, held_out, run=RunPart(tmp_path / name), seed=0)
        orders.append(rankdata(head.predict(val.features), axis=0))
        save_state(tmp_path / "head.pt", head.state())
        again = make_head(config)
        again.restore(load_state(tmp_path / "head.pt"))
        np.testing.assert_array_equal(again.predict(val.features), head.predict(val.features))
    np.testing.assert_array_equal(*orders)


def test_ridge_tells_a_monotone_function_of_a_line_by_ranks(tmp_path):
    train, val = labelled(0), labelled(1)
    truth = rankdata(val.values_NP[:, 1])
    found = {}
    for targets in ("deviations", "ranks"):
        head = make_head(RidgeConfig(targets=targets))
        head.fit(train, val, run=RunPart(tmp_path / targets), seed=0)
        found[targets] = np.corrcoef(rankdata(head.predict(val.features)[:, 1]), truth)[0, 1]
    assert found["ranks"] > 0.99 > found["deviations"]


def test_ranks_of_shares_are_refused():
    with pytest.raises(Idle, match="targets"):
        WeightNetConfig(loss="bce", targets="ranks")
