"""Heads: ridge against scikit-learn, boosting against its file, a perceptron that is resumed."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as TheirRidge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from dwf import preemption
from dwf.errors import ConfigError, Preempted, ShapeMismatch, TooFewNetworks
from dwf.predictors.head_config import BoostingConfig, PerceptronConfig, RidgeConfig
from dwf.predictors.heads import Labelled, Scaling, Table, make_head
from dwf.run_folder import RunPart, load_state, save_state
from dwf.training.config import LoopComputeConfig, LoopConfig

CPU = LoopComputeConfig(device="cpu", threads=1)
PERCEPTRON = PerceptronConfig(
    width=16,
    depth=1,
    training=LoopConfig(
        steps=60,
        batch_size=16,
        learning_rate=0.02,
        validate_every=20,
        keep="best",
        compute=CPU,
    ),
)
HEADS = [
    RidgeConfig(),
    BoostingConfig(trees=40, leaves=4, least_in_leaf=5),
    PERCEPTRON,
]


def examples(count: int = 120, size: int = 12, seed: int = 0) -> Labelled:
    """Two linear properties of scaled and shifted features, with noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, size)) * rng.uniform(0.1, 50, size) + 7
    weights = np.random.default_rng(99).normal(size=(size, 2)) / features.std(0)[:, None]
    values = features @ weights * [1, 1e4] + rng.normal(size=(count, 2)) * [0.5, 1e3]
    return Labelled(Table(features), values)


@pytest.fixture
def run(tmp_path) -> RunPart:
    return RunPart(tmp_path / "run")


@pytest.mark.parametrize("size", [12, 300], ids=["primal", "dual"])
def test_ridge_is_scikit_learns_under_the_penalty_of_the_least_error(run, size):
    train, val, test = (examples(size=size, seed=seed) for seed in range(3))
    head = make_head(RidgeConfig(smallest=1e-2, largest=1e4, penalties=7))
    found = head.fit(train, val, run=run, seed=0)
    assert found["form"] == ("dual" if size > 120 else "primal")
    scaler = StandardScaler().fit(train.features.rows(np.arange(120)))
    x, val_x, test_x = (
        scaler.transform(some.features.rows(np.arange(120))) for some in (train, val, test)
    )
    for place in range(2):
        fits = [
            TheirRidge(alpha, solver="svd").fit(x, train.values_NP[:, place])
            for alpha in np.geomspace(1e-2, 1e4, 7)
        ]
        errors = [np.square(f.predict(val_x) - val.values_NP[:, place]).mean() for f in fits]
        best = fits[int(np.argmin(errors))]
        assert found["penalties"][place] == pytest.approx(best.alpha)
        said = head.predict(test.features)[:, place]
        np.testing.assert_allclose(said, best.predict(test_x), rtol=1e-8)


def test_both_forms_of_ridge_agree(run):
    """As many networks as features less one, and as many: the forms change, the answer hardly."""
    train, val = examples(count=60, size=60), examples(count=60, size=60, seed=1)
    config = RidgeConfig(smallest=1.0, largest=1.0, penalties=1)
    primal, dual = make_head(config), make_head(config)
    assert primal.fit(train, val, run=run, seed=0)["form"] == "primal"
    doubled = np.hstack([train.features.rows(np.arange(60)), np.ones((60, 1))])  # a constant more
    val_doubled = np.hstack([val.features.rows(np.arange(60)), np.zeros((60, 1))])
    more = Labelled(Table(doubled), train.values_NP)
    found = dual.fit(more, Labelled(Table(val_doubled), val.values_NP), run=run, seed=0)
    assert (found["form"], found["features"]) == ("dual", 60)
    np.testing.assert_allclose(
        dual.predict(Table(val_doubled)), primal.predict(val.features), rtol=1e-9
    )


def test_scaling_leaves_out_constants_and_puts_what_is_missing_at_the_mean():
    features = np.array([[1, 0.1, np.nan, np.nan], [3, 0.1, 4, np.nan], [5, 0.1, 6, np.nan]])
    scaled = Scaling.of(Table(features)).apply(features)
    expected = np.array([[-1.5, 0, 0, 0], [0, 0, -1, 0], [1.5, 0, 1, 0]])
    np.testing.assert_allclose(scaled, expected * [np.sqrt(2 / 3), 1, 1, 1], atol=1e-12)


@pytest.mark.parametrize("config", HEADS, ids=lambda c: c.kind)
def test_every_head_learns_and_comes_back_from_its_file(run, tmp_path, config):
    train, val, test = (examples(size=4, count=300, seed=seed) for seed in range(3))
    head = make_head(config)
    head.fit(train, val, run=run, seed=0)
    said = head.predict(test.features)
    errors = np.square(said - test.values_NP).mean(0) / test.values_NP.var(0)
    assert (errors < 0.6).all()
    save_state(tmp_path / "head.pt", head.state())
    again = make_head(config)
    again.restore(load_state(tmp_path / "head.pt"))
    np.testing.assert_array_equal(again.predict(test.features), said)
    np.testing.assert_array_equal(
        again.predict_last(test.features), head.predict_last(test.features)
    )


@pytest.mark.parametrize("config", HEADS, ids=lambda c: c.kind)
def test_the_same_seed_gives_the_same_head(tmp_path, config):
    train, val = examples(), examples(seed=1)
    said = []
    for name in ("one", "two"):
        head = make_head(config)
        head.fit(train, val, run=RunPart(tmp_path / name), seed=3)
        said.append(head.predict(val.features))
    np.testing.assert_array_equal(*said)


@pytest.mark.parametrize("config", HEADS, ids=lambda c: c.kind)
def test_features_that_tell_nothing_give_the_mean(run, config):
    """One that is constant, one that is always missing; a property that is constant."""
    nothing = Table(np.tile([3.0, np.nan], (120, 1)))
    values = np.stack([np.arange(120.0), np.full(120, 5.0)], 1)
    head = make_head(config)
    head.fit(Labelled(nothing, values), Labelled(nothing, values), run=run, seed=0)
    said = head.predict(nothing)
    tolerance = 20 if config.training else 1e-6  # its last bias is learnt
    np.testing.assert_allclose(said, np.tile(values.mean(0), (120, 1)), atol=tolerance)


def test_a_perceptron_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    train, val = examples(), examples(seed=1)
    whole = make_head(PERCEPTRON)
    whole.fit(train, val, run=RunPart(tmp_path / "whole"), seed=0)
    parts, run = make_head(PERCEPTRON), RunPart(tmp_path / "parts")
    steps, rows = [], Table.rows

    def stopping(self, places):
        steps.append(1)
        if len(steps) == 50:
            monkeypatch.setattr(preemption, "_asked", [15])
        return rows(self, places)

    with monkeypatch.context() as patched:
        patched.setattr(Table, "rows", stopping)
        with pytest.raises(Preempted):
            parts.fit(train, val, run=run, seed=0)
    monkeypatch.setattr(preemption, "_asked", [])
    again = make_head(PERCEPTRON)
    again.fit(train, val, run=run, seed=0)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, again.module.state_dict()[name])
    np.testing.assert_array_equal(again.predict(val.features), whole.predict(val.features))


def test_the_last_step_is_kept_beside_the_chosen_one(run, tmp_path):
    train, val = examples(count=32, size=60), examples(size=60, seed=1)
    loop = LoopConfig(
        steps=400, batch_size=16, validate_every=20, keep="best", learning_rate=0.02, compute=CPU
    )
    config = PerceptronConfig(width=16, depth=1, dropout=0.0, training=loop)
    head = make_head(config)
    found = head.fit(train, val, run=run, seed=0)
    assert found["kept_step"] < 400
    errors = [
        np.square(head.targets.apply(said) - head.targets.apply(val.values_NP)).mean()
        for said in (head.predict(val.features), head.predict_last(val.features))
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("config", HEADS, ids=lambda c: c.kind)
def test_bad_input_is_refused(run, config):
    train, val = examples(), examples(seed=1)
    none = Labelled(Table(np.zeros((0, 12))), np.zeros((0, 2)))
    with pytest.raises(TooFewNetworks, match="no networks to learn from"):
        make_head(config).fit(none, val, run=run, seed=0)
    if not config.training:
        with pytest.raises(TooFewNetworks, match="chooses by validation networks"):
            make_head(config).fit(train, none, run=run, seed=0)
    bad = train.features.rows(np.arange(120)).copy()
    bad[3, 5] = np.inf
    with pytest.raises(ConfigError, match="diverged"):
        make_head(config).fit(Labelled(Table(bad), train.values_NP), val, run=run, seed=0)
    head = make_head(config)
    head.fit(train, val, run=run, seed=0)
    with pytest.raises(ShapeMismatch, match="11 features of each network"):
        head.predict(Table(np.zeros((3, 11))))


def test_a_ridge_without_a_range_and_too_small_a_batch_are_refused(run):
    with pytest.raises(ValueError, match=r"smallest = 10 is above largest = 1"):
        RidgeConfig(smallest=10, largest=1)
    with pytest.raises(TooFewNetworks, match="batch_size = 16"):
        make_head(PERCEPTRON).fit(examples(count=8), examples(), run=run, seed=0)


@pytest.mark.parametrize("size", [40, 900], ids=["primal", "dual"])
def test_ridge_is_the_same_on_any_number_of_threads(run, size):
    train, val = (examples(count=400, size=size, seed=seed) for seed in range(2))
    told = []
    for count in (1, 2):
        head = make_head(RidgeConfig())
        with threadpool_limits(count, user_api="blas"):
            head.fit(train, val, run=run, seed=0)
            told.append(head.predict(val.features))
    np.testing.assert_array_equal(*told)
