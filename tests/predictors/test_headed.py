"""Predictors of features and a head: what they tell, keep, refuse, and under what they stay."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf.align.groups import permute, random_orders
from dwf.align.symmetry import symmetry_of
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.networks.functional import build_network
from dwf.predictors.config import (
    PREDICTORS,
    ArchitectureConfig,
    FlatConfig,
    HyperParametersConfig,
    NormsConfig,
    SpectraConfig,
    StatisticsConfig,
)
from dwf.predictors.examples import Examples
from dwf.predictors.head_config import BoostingConfig, PerceptronConfig, RidgeConfig
from dwf.predictors.predictor import Predictor
from dwf.run_folder import RunPart
from dwf.settings import find
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.zoo.config import RangeConfig, VaryConfig
from tests.predictors.made import MLP, layout_of, made_zoo, split

BOOSTING = BoostingConfig(trees=60, leaves=4, least_in_leaf=5)
PERCEPTRON = PerceptronConfig(
    width=16,
    depth=1,
    training=LoopConfig(
        steps=200, batch_size=16, learning_rate=0.01, compute=LoopComputeConfig("cpu", threads=1)
    ),
)
OF_WEIGHTS = [
    StatisticsConfig(),
    StatisticsConfig(head=RidgeConfig()),
    StatisticsConfig(head=PERCEPTRON),
    NormsConfig(),
    NormsConfig(layers=False),
    FlatConfig(),
    FlatConfig(head=PERCEPTRON),
    SpectraConfig(),
    SpectraConfig(head=RidgeConfig()),
]


def small(config):
    """With fewer trees, where it has some."""
    has_trees = isinstance(config.head, BoostingConfig)
    return replace(config, head=BOOSTING) if has_trees else config


def named(config) -> str:
    return f"{config.kind}-{config.head.kind}"


def make(config) -> Predictor:
    return find(PREDICTORS, config.kind)(small(config))


@pytest.fixture
def run(tmp_path) -> RunPart:
    return RunPart(tmp_path / "runs" / "test")


def mean_square(weights: np.ndarray) -> np.ndarray:
    return np.square(weights.astype(np.float64)).mean(1)


@pytest.mark.parametrize("config", OF_WEIGHTS, ids=named)
def test_what_weights_tell_is_told_kept_and_read(run, tmp_path, config):
    zoo = made_zoo(tmp_path / "zoo", count=240)
    is_flat = config.kind == "flat"  # a norm is no linear function of the weights
    values = zoo.read().sum(1) if is_flat else np.sqrt(mean_square(zoo.read()))
    train, val = split(zoo, values, 60)
    predictor = make(config)
    predictor.fit(train, val, run=run, seed=0)
    said = predictor.predict(val.sources)
    errors = np.square(said - val.values_NP).mean(0) / val.values_NP.var(0)
    assert (errors < 0.4).all()
    predictor.save(tmp_path / "kept")
    again = Predictor.load(tmp_path / "kept")
    assert again.properties == ("value", "tenth")
    np.testing.assert_array_equal(again.predict(val.sources), said)
    np.testing.assert_array_equal(
        again.predict_last(val.sources), predictor.predict_last(val.sources)
    )


@pytest.mark.parametrize("config", OF_WEIGHTS, ids=named)
def test_planted_symmetries_change_nothing_where_that_is_claimed(run, tmp_path, config):
    """Orders and signs of the hidden units of MLPs with tanh; scales of those with ReLU."""
    zoo = made_zoo(tmp_path / "zoo", replace(MLP, activation="tanh"), count=80)
    train, val = split(zoo, mean_square(zoo.read()), 30)
    predictor = make(config)
    predictor.fit(train, val, run=run, seed=0)
    weights = torch.from_numpy(zoo.read())
    groups = symmetry_of(build_network(zoo.facts.network), zoo.layout, input_shape=(8,))
    orders = random_orders(groups, len(zoo), seed=0)
    changed = {
        "permutations": permute(weights, zoo.layout, groups=groups, orders=orders).numpy(),
        "signs": scaled(weights.numpy(), lambda rng, size: rng.choice([-1, 1], size)),
        "scales": scaled(weights.numpy(), lambda rng, size: rng.uniform(0.25, 4, size)),
    }
    said = predictor.predict([(zoo, np.arange(len(zoo)))])
    for name, rows in changed.items():
        other = made_zoo(tmp_path / name, zoo.facts.network, weights=rows)
        told = predictor.predict([(other, np.arange(len(other)))])
        change = np.abs((told - said) / train.values_NP.std(0)).max()
        assert (change <= 1e-5) == (name in config.invariances), f"{name} change it by {change}"


def scaled(weights_ND: np.ndarray, factors) -> np.ndarray:
    """Hidden units of the MLP 8-6-4 multiplied by factors, and their outgoing weights divided."""
    tensors = layout_of(MLP).unflatten(weights_ND.copy())
    into, bias, out = list(tensors.values())[:3]
    factors_NU = factors(np.random.default_rng(0), bias.shape).astype(np.float32)
    into *= factors_NU[:, :, None]
    bias *= factors_NU
    out /= factors_NU[:, None]
    return np.concatenate([t.reshape(len(weights_ND), -1) for t in tensors.values()], 1)


@pytest.mark.parametrize("config", [StatisticsConfig(), NormsConfig()], ids=named)
def test_several_architectures_are_one_table(run, tmp_path, config):
    networks = (MLP, MLPConfig((8, 6, 5, 4)), CNNConfig((3,), (1, 5, 5), norm="batch"))
    zoos = [
        made_zoo(tmp_path / f"zoo-{i}", network, count=80, seed=i)
        for i, network in enumerate(networks)
    ]
    parts = [split(zoo, np.sqrt(mean_square(zoo.read())), 20) for zoo in zoos]
    train, val = (
        Examples(
            [each.sources[0] for each in some],
            ("value", "tenth"),
            np.concatenate([each.values_NP for each in some]),
        )
        for some in zip(*parts, strict=True)
    )
    predictor = make(config)
    predictor.fit(train, val, run=run, seed=0)
    said = predictor.predict(val.sources)
    each = [predictor.predict([source]) for source in val.sources]
    np.testing.assert_array_equal(np.concatenate(each), said)
    errors = np.square(said - val.values_NP).mean(0) / val.values_NP.var(0)
    assert (errors < 0.5).all()
    deep = made_zoo(tmp_path / "deep", MLPConfig((8, 6, 5, 5, 4)), count=2)
    with pytest.raises(ShapeMismatch, match="layer 3"):
        predictor.predict([(deep, np.arange(2))])


def test_flat_tells_networks_of_one_layout_alone(run, tmp_path):
    zoo, wide = made_zoo(tmp_path / "zoo"), made_zoo(tmp_path / "wide", MLPConfig((8, 7, 4)))
    train, val = split(zoo, zoo.read().sum(1), 10)
    predictor = make(FlatConfig())
    predictor.fit(train, val, run=run, seed=0)
    with pytest.raises(ShapeMismatch, match="flat learns from and tells networks of one layout"):
        predictor.predict([(wide, np.arange(3))])


def test_flat_reads_networks_of_several_zoos_in_their_order(run, tmp_path):
    zoos = [made_zoo(tmp_path / str(seed), count=30, seed=seed) for seed in range(2)]
    rows = [np.array([4, 2, 9]), np.array([7, 0])]
    predictor = make(FlatConfig())
    train, val = split(zoos[0], zoos[0].read().sum(1), 10)
    predictor.fit(train, val, run=run, seed=0)
    table = predictor.features(list(zip(zoos, rows, strict=True)))
    expected = np.concatenate([zoo.read()[some] for zoo, some in zip(zoos, rows, strict=True)])
    places = np.array([3, 0, 4, 4])
    np.testing.assert_array_equal(table.rows(places), expected[places])
    np.testing.assert_array_equal(table.window(5, 11), expected[:, 5:11])


def columns_of(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "learning_rate": 10 ** rng.uniform(-5, -1, count),
        "optimizer": rng.choice(["adam", "sgd"], count),
        "dropout": np.full(count, 0.5),
        "val_accuracy": rng.uniform(size=count),
    }


VARY = VaryConfig(learning_rate=RangeConfig(1e-5, 1e-1, "log"), optimizer=("adam", "sgd"))


@pytest.mark.parametrize("head", [BoostingConfig(), RidgeConfig()], ids=lambda c: c.kind)
def test_hyper_parameters_are_columns_of_what_varies(run, tmp_path, head):
    columns = columns_of(200)
    zoo = made_zoo(tmp_path / "zoo", count=200, columns=columns, vary=VARY)
    values = np.log10(columns["learning_rate"]) + 3 * (columns["optimizer"] == "sgd")
    train, val = split(zoo, values, 50)
    predictor = make(HyperParametersConfig(head=head))
    predictor.fit(train, val, run=run, seed=0)
    assert predictor.names == ("learning_rate", "optimizer", "epoch")
    features = predictor.features(val.sources).rows(np.arange(50))
    np.testing.assert_allclose(features[:, 0], np.log(columns["learning_rate"][150:]))
    np.testing.assert_array_equal(features[:, 2], columns["optimizer"][150:] == "sgd")
    said = predictor.predict(val.sources)
    tolerance = 1e-3 if head.kind == "ridge" else 0.15
    assert np.square(said[:, 0] - values[150:]).mean() / values.var() < tolerance
    predictor.save(tmp_path / "kept")
    np.testing.assert_array_equal(Predictor.load(tmp_path / "kept").predict(val.sources), said)


def test_settings_in_which_zoos_differ_are_hyper_parameters(run, tmp_path):
    zoos = [
        made_zoo(tmp_path / activation, replace(MLP, activation=activation), seed=seed)
        for seed, activation in enumerate(["relu", "tanh"])
    ]
    sources = [(zoo, np.arange(40)) for zoo in zoos]
    told = Examples(sources, ("value",), np.repeat([[1.0], [2.0]], 40, axis=0))
    predictor = make(HyperParametersConfig(head=RidgeConfig()))
    predictor.fit(told, told, run=run, seed=0)
    assert predictor.differing == ("network.activation",)
    np.testing.assert_allclose(predictor.predict(sources), told.values_NP, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["test_accuracy", "val_loss", "train_accuracy", "generalisation_gap", "checksum", "diverged"],
)
def test_scores_are_no_hyper_parameters(name):
    with pytest.raises(ValueError, match=f"columns has '{name}'"):
        HyperParametersConfig(columns=("learning_rate", name))


def test_columns_that_are_missing_or_to_be_told_are_refused(run, tmp_path):
    zoo = made_zoo(tmp_path / "zoo", columns=columns_of(40))
    train, val = split(zoo, np.arange(40.0), 10)
    with pytest.raises(ConfigError, match=r"no column momentum, .* it has dropout, epoch"):
        make(HyperParametersConfig(columns=("momentum",))).fit(train, val, run=run, seed=0)
    told = Examples(train.sources, ("dropout", "b"), train.values_NP)
    with pytest.raises(ConfigError, match="columns has dropout, which is to be told"):
        make(HyperParametersConfig(columns=("dropout",))).fit(told, val, run=run, seed=0)
    column = {"word": np.arange(300).astype(str)}
    many = made_zoo(tmp_path / "many", count=300, columns=column)
    train, val = split(many, np.arange(300.0), 10)
    with pytest.raises(ConfigError, match="column word has 290 different words"):
        make(HyperParametersConfig(columns=("word",))).fit(train, val, run=run, seed=0)


@pytest.mark.parametrize("head", [BOOSTING, RidgeConfig()], ids=lambda c: c.kind)
def test_a_zoo_that_varies_nothing_has_the_mean_told(run, tmp_path, head):
    zoo = made_zoo(tmp_path / "zoo")
    train, val = split(zoo, np.arange(40.0), 10)
    for config in (HyperParametersConfig(head=head), ArchitectureConfig(head=head)):
        predictor = make(config)
        predictor.fit(train, val, run=run, seed=0)
        expected = np.tile(train.values_NP.mean(0), (10, 1))
        np.testing.assert_allclose(predictor.predict(val.sources), expected, atol=1e-6)


def test_the_architecture_is_told_by_its_zoo(run, tmp_path):
    networks = (MLP, MLPConfig((8, 60, 4)), replace(MLP, activation="tanh"))
    zoos = [made_zoo(tmp_path / str(i), each, seed=i) for i, each in enumerate(networks)]
    sources = [(zoo, np.arange(40)) for zoo in zoos]
    values = np.repeat([[1.0], [5.0], [2.0]], 40, axis=0)
    predictor = make(ArchitectureConfig())
    predictor.fit(
        Examples(sources, ("value",), values),
        Examples(sources, ("value",), values),
        run=run,
        seed=0,
    )
    features = predictor.features(sources).rows(np.array([0, 40, 80]))
    np.testing.assert_allclose(features[:, 3], [82, 784, 82])
    np.testing.assert_array_equal(features[:, 4], [2, 2, 2])
    np.testing.assert_allclose(predictor.predict(sources), values, atol=1e-4)
    new = made_zoo(tmp_path / "new", MLPConfig((8, 9, 4)), count=2)
    assert np.isfinite(predictor.predict([(new, np.arange(2))])).all()


def test_how_a_head_learns_is_how_its_predictor_does():
    config = StatisticsConfig(head=PERCEPTRON)
    assert config.training is PERCEPTRON.training
    assert config.with_training(LoopConfig(steps=7)).head.training.steps == 7
    assert FlatConfig().training is None
