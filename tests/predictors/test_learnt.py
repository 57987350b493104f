"""The base of predictors that train, with a kind of the test's own, and the constant."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from dwf.errors import ConfigError, TooFewNetworks
from dwf.predictors.config import ConstantConfig
from dwf.predictors.constant import Constant
from dwf.predictors.examples import Examples
from dwf.predictors.predictor import Predictor
from dwf.run_folder import RunPart
from dwf.training.config import LoopConfig
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo
from tests.predictors.kinds import Line, LineConfig
from tests.zoos import facts_of, write_rows

FEW_STEPS = LoopConfig(steps=40, batch_size=8, validate_every=10, learning_rate=0.05, keep="best")


def zoo_of(folder, count: int, seed: int) -> Zoo:
    layout = Layout.of(nn.Linear(64, 10))
    weights = np.random.default_rng(seed).normal(size=(count, layout.size)).astype(np.float32)
    return write_rows(folder, facts_of(layout), weights)


def examples_of(*zoos: Zoo) -> Examples:
    """The sum of the first 64 weights, and a tenth of it."""
    sums = np.concatenate([zoo.read(start=0, stop=64).sum(1, dtype=np.float64) for zoo in zoos])
    sources = tuple((zoo, np.arange(len(zoo))) for zoo in zoos)
    return Examples(sources, ("sum", "tenth"), np.stack([sums, sums / 10 + 3], 1))


@pytest.fixture
def networks(tmp_path):
    zoos = [zoo_of(tmp_path / f"zoo-{seed}", 40, seed) for seed in range(3)]
    return examples_of(*zoos[:2]), examples_of(zoos[2])


def test_a_line_is_learnt_from_two_zoos_and_told_in_its_units(networks, tmp_path):
    train, val = networks
    line = Line(LineConfig(training=LoopConfig(steps=600, batch_size=16, learning_rate=0.02)))
    found = line.fit(train, val, run=RunPart(tmp_path / "run"), seed=0)
    assert found["parameters"] == 2 * 651
    assert np.abs(line.predict(train.sources) - train.values_NP).max() < 0.05
    each = [line.predict([source]) for source in train.sources]
    np.testing.assert_allclose(np.concatenate(each), line.predict(train.sources), atol=1e-5)


def test_a_line_that_learns_ranks_tells_values(networks, tmp_path):
    train, val = networks
    loop = LoopConfig(steps=600, batch_size=16, learning_rate=0.02)
    line = Line(LineConfig(targets="ranks", training=loop))
    line.fit(train, val, run=RunPart(tmp_path / "run"), seed=0)
    told = line.predict(train.sources)
    assert np.corrcoef(told[:, 0], train.values_NP[:, 0])[0, 1] > 0.98
    np.testing.assert_allclose(told.mean(0), train.values_NP.mean(0), atol=1.0)
    scores = line.targets.apply(train.values_NP)
    np.testing.assert_allclose(line.wanted(train).numpy(), scores, atol=1e-6)


def test_the_chosen_step_and_the_last_one_are_both_kept(networks, tmp_path):
    train, val = networks
    line = Line(LineConfig(training=FEW_STEPS))
    line.fit(train, val, run=RunPart(tmp_path / "run"), seed=0)
    # 80 networks do not tell 650 weights: the held-out error of the best step is no worse.
    errors = [
        np.square((said - val.values_NP) / line.targets.std_P).mean()
        for said in (line.predict(val.sources), line.predict_last(val.sources))
    ]
    alone = Line(LineConfig(training=replace(FEW_STEPS, keep="last")))
    alone.fit(train, val, run=RunPart(tmp_path / "alone"), seed=0)
    assert errors[0] <= errors[1]
    np.testing.assert_array_equal(line.predict_last(val.sources), alone.predict(val.sources))


@pytest.mark.parametrize("loss", ["mae", "huber", "bce"])
def test_every_loss_takes_steps(networks, tmp_path, loss):
    train, _ = networks
    values = (train.values_NP - train.values_NP.min(0)) / np.ptp(train.values_NP, axis=0)
    train = Examples(train.sources, train.properties, values)
    line = Line(LineConfig(loss=loss, training=LoopConfig(steps=300, batch_size=8)))
    line.fit(train, train, run=RunPart(tmp_path / "run"), seed=0)
    assert (
        np.abs(line.predict(train.sources) - values).mean()
        < 0.5 * np.abs(values - values.mean(0)).mean()
    )


def test_bad_values_and_too_few_networks_are_refused(networks, tmp_path):
    train, val = networks
    with pytest.raises(ConfigError, match=r"sum, tenth: .* reach from .* set mse"):
        Line(LineConfig(loss="bce")).fit(train, val, run=RunPart(tmp_path / "run"), seed=0)
    few = Examples([(train.sources[0][0], np.arange(3))], train.properties, train.values_NP[:3])
    with pytest.raises(TooFewNetworks, match="batch_size = 8"):
        Line(LineConfig(training=FEW_STEPS)).fit(few, val, run=RunPart(tmp_path / "run"), seed=0)
    bad = train.values_NP.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ConfigError, match="tenth of 1 of 80 networks is no number"):
        Examples(train.sources, train.properties, bad)


def test_the_constant_is_the_mean_and_comes_back_from_its_file(networks, tmp_path):
    train, val = networks
    constant = Constant(ConstantConfig())
    constant.fit(train, val, run=RunPart(tmp_path / "run"), seed=0)
    constant.save(tmp_path)
    again = Predictor.load(tmp_path)
    assert again.properties == ("sum", "tenth")
    expected = np.tile(train.values_NP.mean(0), (40, 1))
    np.testing.assert_array_equal(again.predict(val.sources), expected)
