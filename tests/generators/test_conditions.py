"""Generators that are asked for networks of a validation accuracy, of a category, of a dataset.

Held against zoos whose weights are planted: they follow from what is told of each network.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dwf.codecs.config import PcaConfig
from dwf.commands import COMMANDS
from dwf.datasets.config import DataConfig
from dwf.densities.config import FlowConfig, GaussianConfig
from dwf.errors import ConfigError
from dwf.evaluation.measure import Yardstick
from dwf.generators.config import GeneratorConfig, SampleConfig, SubsampleConfig
from dwf.generators.facts import FACTS
from dwf.generators.generator import Generator
from dwf.generators.learning import learning_of_density
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator, plan
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.settings import build, to_dict
from dwf.zoo.checkpoint import told_of
from dwf.zoo.layout import Layout
from dwf.zoo.provenance import Aligned
from dwf.zoo.store import Zoo, split_networks, write_zoo
from tests.zoos import facts_of

ROOT = Path(__file__).parents[2]
NUM = 60


@pytest.fixture
def make_planted(tmp_path):
    """Write a zoo in which all weights rise with the accuracy: `make(val_accuracy) -> Zoo`."""

    def make(accuracy_N: np.ndarray | None, name: str = "small", widths=(64, 4, 10)) -> Zoo:
        network = MLPConfig(tuple(widths))
        layout, rng = Layout.of(build_network(network)), np.random.default_rng(0)
        weights_ND = 0.05 * rng.standard_normal((NUM, layout.size))
        columns = {"network": np.arange(NUM), "split": split_networks(NUM, 0.2, test=0.2, seed=0)}
        columns["epoch"] = np.ones(NUM, np.int32)
        if accuracy_N is not None:
            columns["val_accuracy"] = accuracy_N
            weights_ND += np.nan_to_num(accuracy_N)[:, None]
        blocks = [(columns, weights_ND.astype(np.float32))]
        return write_zoo(
            tmp_path / "zoos" / name, facts_of(layout, network), num_rows=NUM, blocks=blocks
        )

    return make


@pytest.fixture
def conditioned(flow_on_pca) -> GeneratorConfig:
    density = flow_on_pca.density
    training = dataclasses.replace(density.training, steps=300, batch_size=32, warm_up=0)
    density = dataclasses.replace(density, training=training, condition="val_accuracy")
    return GeneratorConfig("small", codec=PcaConfig(components=1), density=density)


ACCURACY_N = np.random.default_rng(1).uniform(0.5, 0.9, NUM)


def test_networks_are_as_they_were_asked_for(make_planted, conditioned, tmp_path):
    zoo = make_planted(ACCURACY_N)
    fit_generator(conditioned, tmp_path, name="fitted")
    levels = []
    for number, asked in enumerate((0.55, 0.85)):
        config = SampleConfig("fitted", count=40, condition=asked, guidance=1.0 + number)
        drawn = sample_networks(config, tmp_path, name=f"drawn-{number}")
        levels.append(drawn.read().mean())
        provenance = drawn.facts.sampled
        assert provenance.condition == {"val_accuracy": asked}
        assert provenance.guidance == 1.0 + number
        assert drawn.columns["asked_val_accuracy"].tolist() == [asked] * 40
        steps = {0: 8, 1: 16}[number]  # guidance costs a second evaluation
        assert provenance.evaluations_per_sample == steps
    any_ = sample_networks(SampleConfig("fitted", count=40), tmp_path, name="any")
    assert "condition" not in any_.facts.to_json()["provenance"]
    assert levels[0] == pytest.approx(0.55, abs=0.1) and levels[1] > levels[0] + 0.15
    train = zoo.read(zoo.rows("train"))
    assert any_.read().mean() == pytest.approx(train.mean(), abs=0.1)
    assert any_.read().mean(1).std() > 0.5 * train.mean(1).std()


def test_last_epochs_are_more_rows_and_the_last_is_asked_for(conditioned, tmp_path):
    """Networks rise with their epochs; split by network, and one network counts once."""
    network = MLPConfig((64, 4, 10))
    layout, epochs = Layout.of(build_network(network)), np.array([5, 6, 7], np.int32)
    split = split_networks(NUM, 0.2, test=0.2, seed=0)
    columns = {"network": np.repeat(np.arange(NUM), 3), "split": np.repeat(split, 3)}
    columns["epoch"] = np.tile(epochs, NUM)
    weights_ND = 0.05 * np.random.default_rng(0).standard_normal((3 * NUM, layout.size))
    weights_ND += columns["epoch"][:, None]
    blocks = [(columns, weights_ND.astype(np.float32))]
    path, facts = tmp_path / "zoos" / "small", facts_of(layout, network)
    zoo = write_zoo(path, facts, num_rows=3 * NUM, blocks=blocks)
    density = dataclasses.replace(conditioned.density, condition="epoch")
    config = dataclasses.replace(conditioned, density=density, epochs=(6, 7))
    learning = learning_of_density(config, zoo)
    (_, train), (_, val) = learning.train[0], learning.val[0]
    for rows, name in ((train, "train"), (val, "val")):
        assert len(rows) == 2 * (split == name).sum()
        assert set(columns["network"][rows]) == set(np.flatnonzero(split == name))
    assert learning.conditions[0]["epoch"].tolist() == columns["epoch"][train].tolist()
    fit_generator(config, tmp_path, name="fitted")
    for asked in (6, 7):
        how = SampleConfig("fitted", count=40, condition=asked)
        drawn = sample_networks(how, tmp_path, name=f"epoch-{asked}")
        assert drawn.facts.sampled.condition == {"epoch": asked}
        assert drawn.read().mean() == pytest.approx(asked, abs=0.2)
    yardstick = Yardstick(zoo, zoo.load_data())
    held = yardstick.training.rows  # one row of each network, at the epoch asked for
    assert sorted(columns["network"][held]) == sorted(np.flatnonzero(split == "train"))
    assert set(columns["epoch"][held]) == {7}


def test_a_draw_is_the_densitys_under_the_condition(make_planted, conditioned, tmp_path):
    make_planted(ACCURACY_N)
    training = dataclasses.replace(conditioned.density.training, steps=20)
    density = dataclasses.replace(conditioned.density, training=training)
    fit_generator(dataclasses.replace(conditioned, density=density), tmp_path, name="fitted")
    generator = Generator.load(tmp_path / "runs" / "fitted")
    config = SampleConfig("fitted", count=5, seed=2, condition=0.7, guidance=3)
    drawn = sample_networks(config, tmp_path, name="drawn")
    codes = generator.density.sample(5, 2, condition=0.7, guidance=3)
    expected = generator.codec.decode(codes, generator.layout)
    np.testing.assert_array_equal(drawn.read(), expected.numpy())
    chosen = dataclasses.replace(config, count=2, selection=SubsampleConfig(draws=3))
    kept = sample_networks(chosen, tmp_path, name="kept")
    pool = generator.sample(6, 2, condition=0.7, guidance=3).numpy()
    np.testing.assert_array_equal(kept.read(), pool[kept.columns["drawn"]])


def test_the_flow_is_told_the_column_of_each_row(make_planted, conditioned):
    zoo = make_planted(ACCURACY_N)
    config = dataclasses.replace(conditioned, best=0.5)
    learning = learning_of_density(config, zoo)
    for sources, told in zip((learning.train, learning.val), learning.conditions, strict=True):
        assert told["val_accuracy"].tolist() == ACCURACY_N[sources[0][1]].tolist()
    assert len(learning.conditions[0]["val_accuracy"]) == 18
    free = dataclasses.replace(conditioned, density=FlowConfig())
    assert learning_of_density(free, zoo).conditions is None


@pytest.mark.parametrize("asked", [0.0, 0.3, 0.95, 1.0])
def test_a_condition_outside_the_training_networks_is_refused(
    make_planted, conditioned, tmp_path, asked
):
    zoo = make_planted(ACCURACY_N)
    training = dataclasses.replace(conditioned.density.training, steps=2)
    density = dataclasses.replace(conditioned.density, training=training)
    fit_generator(dataclasses.replace(conditioned, density=density), tmp_path, name="fitted")
    range_ = ACCURACY_N[zoo.rows("train")]
    said = rf"condition = {asked:g}: .* in \[{range_.min():.6g}, {range_.max():.6g}\]"
    with pytest.raises(ConfigError, match=said):
        sample_networks(SampleConfig("fitted", condition=asked), tmp_path, name="drawn")
    assert not (tmp_path / "zoos" / "drawn").exists()


def test_what_has_no_condition_is_refused(make_planted, conditioned, tmp_path):
    make_planted(ACCURACY_N)
    gaussian = dataclasses.replace(conditioned, density=GaussianConfig())
    fit_generator(gaussian, tmp_path, name="gaussian")
    with pytest.raises(ConfigError, match=r"condition = 0.7: .* gaussian \(gaussian\) was fitted"):
        sample_networks(SampleConfig("gaussian", condition=0.7), tmp_path, name="drawn")
    with pytest.raises(ConfigError, match=r"guidance = 2.0: no effect, as condition = none"):
        build(SampleConfig, {"generator": "fitted", "guidance": 2}, source="test")
    with pytest.raises(ConfigError, match="guidance = 0: allowed is above 0"):
        build(SampleConfig, {"generator": "f", "condition": 0.9, "guidance": 0}, source="test")


def test_what_was_never_learnt_without_a_condition_is_refused(make_planted, conditioned, tmp_path):
    make_planted(ACCURACY_N)
    training = dataclasses.replace(conditioned.density.training, steps=2)
    density = dataclasses.replace(conditioned.density, training=training, drop_condition=0.0)
    config = dataclasses.replace(conditioned, density=density)
    with pytest.raises(ConfigError, match=r"likelihood = 5 is that of networks whatever their"):
        build(GeneratorConfig, to_dict(config) | {"likelihood": 5}, source="test")
    fit_generator(config, tmp_path, name="fitted")
    with pytest.raises(ConfigError, match=r"drop_condition = 0, this flow has not learnt"):
        sample_networks(SampleConfig("fitted", count=2), tmp_path, name="drawn")
    assert not (tmp_path / "zoos" / "drawn").exists()
    sample_networks(SampleConfig("fitted", count=2, condition=0.7), tmp_path, name="drawn")


def test_a_zoo_without_the_column_is_refused(make_planted, conditioned, tmp_path):
    make_planted(None)
    with pytest.raises(
        ConfigError, match=r"'val_accuracy': .*small has no column val_accuracy: set"
    ):
        fit_generator(conditioned, tmp_path, name="fitted")
    make_planted(np.where(np.arange(NUM) < 50, np.nan, 0.5))
    with pytest.raises(ConfigError, match=r"\d+ of 36 rows of .*small .* that is no number"):
        fit_generator(conditioned, tmp_path, name="fitted")
    assert not (tmp_path / "runs").exists()


def test_the_commands_say_what_is_asked_for(
    make_planted, conditioned, tmp_path, monkeypatch, capsys
):
    make_planted(ACCURACY_N)
    said = plan(conditioned, tmp_path, name="g")
    assert "conditioned on val_accuracy, left out of 10% of the training networks" in said
    monkeypatch.chdir(ROOT)
    words = ["--generator", "fitted", "--root", str(tmp_path), "--dry-run", "--condition", "0.9"]
    COMMANDS["sample"].run([*words, "--guidance", "2", "--zoo", "narrow", "--count", "7"])
    said = capsys.readouterr().out
    assert "7 networks asked for 0.9, guidance 2, of the architecture of narrow:" in said


@pytest.fixture
def by_words(make_zoo, conditioned):
    """Zoos `mnist` and `fashion` of equal layout, weights near 1 and near 3, and what learns them.

    Those of initialisation `he` lie 0.5 higher than the others.
    """
    words = np.array(["he", "xavier"] * 30)
    for name, level in (("mnist", 1.0), ("fashion", 3.0)):
        kind = {"mnist": "mnist", "fashion": "fashion_mnist"}[name]
        plant = {"initialisation": words, "optimizer": np.array(["adam"] * 60)}
        plant["test_accuracy"] = np.linspace(0, 1, 60)
        plain = make_zoo(60, (784, 4, 10), f"{name}-plain", data=DataConfig(kind), **plant)
        weights_ND = 0.05 * plain.read() + level + 0.5 * (words == "he")[:, None]
        columns = {key: v for key, v in plain.columns.items() if key != "checksum"}
        blocks = [(columns, weights_ND.astype(np.float32))]
        write_zoo(plain.path.parent / name, plain.facts, num_rows=60, blocks=blocks)
    density = dataclasses.replace(conditioned.density, condition=("data", "initialisation"))
    return dataclasses.replace(conditioned, zoo="mnist", more_zoos=("fashion",), density=density)


def test_one_generator_of_two_datasets_draws_the_one_that_is_asked_for(by_words, tmp_path):
    fit_generator(by_words, tmp_path, name="both")
    levels = {}
    for data, zoo in (("mnist", "mnist"), ("fashion_mnist", "fashion")):
        asked = f"data={data}", "initialisation=each"
        config = SampleConfig("both", count=20, condition=asked, guidance=("data=1.5",))
        drawn = sample_networks(config, tmp_path, name=f"drawn-{data}")
        told = drawn.facts.sampled
        assert (told.zoo, drawn.facts.data.source) == (zoo, data)
        assert told.learnt_from == ("mnist", "fashion")
        assert told.condition == {"data": data, "initialisation": "each"}
        assert told.guidance == {"data": 1.5, "initialisation": 1.0}
        assert told.evaluations_per_sample == 16  # the dataset's guidance alone is another
        words = drawn.columns["asked_initialisation"]
        assert words.tolist() == ["he", "xavier"] * 10
        assert set(drawn.columns["asked_data"]) == {data}
        levels[data] = drawn.read().mean(1)
        assert levels[data][words == "he"].mean() > levels[data][words != "he"].mean()
    assert levels["fashion_mnist"].mean() > levels["mnist"].mean() + 1
    mixed = "data=mnist:0.4,fashion_mnist:0.6"
    between = sample_networks(SampleConfig("both", 4, condition=(mixed,)), tmp_path, name="between")
    assert between.facts.sampled.zoo == "fashion"
    with pytest.raises(ConfigError, match=r"condition data = each: all networks of a zoo of samp"):
        sample_networks(SampleConfig("both", 4, condition=("data=each",)), tmp_path, name="no")
    with pytest.raises(ConfigError, match=r"has 'cifar10': ask for data one of fashion_mnist, mn"):
        sample_networks(SampleConfig("both", condition=("data=cifar10",)), tmp_path, name="no")
    assert not (tmp_path / "zoos" / "no").exists()


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("initialisation", r"has the architecture of mnist and other data, which .* not told: set"),
        (("data", "optimizer"), "'optimizer': every training network has the same, adam, so that"),
        (("data", "classes"), r"'classes': every training network has the same, 0\+1\+2"),
        (("data", "depth"), r"'depth': .*mnist has no column depth: .* some of architecture"),
    ],
)
def test_what_says_nothing_is_refused_before_anything_is_trained(
    by_words, tmp_path, condition, said
):
    density = dataclasses.replace(by_words.density, condition=condition)
    config = dataclasses.replace(by_words, density=density)
    with pytest.raises(ConfigError, match=said):
        fit_generator(config, tmp_path, name="fitted")
    with pytest.raises(ConfigError, match=said):
        plan(config, tmp_path, name="fitted")
    assert not (tmp_path / "runs").exists()


def test_the_plan_counts_what_is_built_and_tells_of_frames(by_words, tmp_path):
    said = plan(by_words, tmp_path, name="g")
    assert "conditioned on data, initialisation, left out of 10% of the training networks" in said
    training = dataclasses.replace(by_words.density.training, steps=2)
    density = dataclasses.replace(by_words.density, training=training)
    built = fit_generator(
        dataclasses.replace(by_words, density=density), tmp_path, name="f"
    ).density
    counted = sum(parameter.numel() for parameter in built.module.parameters())
    assert f"of {counted:,} parameters" in said and "WARNING" not in said
    how = {"method": "git_rebasin", "scale": "none", "reference": "network", "seed": 0}
    frames = {"mnist": ("other", "0" * 16, None), "fashion": ("plain", "1" * 16, "0" * 16)}
    for reference in (0, 1):
        for name, (before, fingerprint, of_reference) in frames.items():
            zoo = Zoo.open(tmp_path / "zoos" / name)
            place = Aligned(
                before,
                fingerprint,
                **how,
                reference_network=reference if name == "fashion" else 0,
                reference_zoo=of_reference and "other",
                reference_fingerprint=of_reference,
            )
            facts = dataclasses.replace(zoo.facts, provenance=place)
            columns = {key: v for key, v in zoo.columns.items() if key != "checksum"}
            path = tmp_path / f"framed-{reference}" / "zoos" / name
            write_zoo(path, facts, num_rows=60, blocks=[(columns, zoo.read())])
        said = plan(by_words, tmp_path / f"framed-{reference}", name="g")
        wrong = "WARNING: mnist, fashion are of one architecture and in frames of their own"
        assert (wrong in said) == (reference == 1)


def test_facts_of_a_zoo_are_words_that_a_command_takes(make_zoo):
    zoo = make_zoo(data=DataConfig("digits", classes=(3, 1)))
    found = {name: fact(zoo.facts) for name, fact in FACTS.items()}
    assert found == {"data": "digits", "classes": "3+1", "architecture": "mlp-64x16x10-relu"}


def test_a_generator_is_told_which_checkpoint_to_imitate(make_planted, conditioned, tmp_path):
    """RPG's "permutation state"."""
    zoo = make_planted(ACCURACY_N)
    training = dataclasses.replace(conditioned.density.training, steps=2, batch_size=4)
    density = dataclasses.replace(conditioned.density, training=training, drop_condition=0.0)
    density = dataclasses.replace(density, condition="checkpoint")
    config = dataclasses.replace(conditioned, density=density, networks=4)
    names = [str(row) for row in zoo.rows("train")[:4]]  # the number of each network is its row
    assert learning_of_density(config, zoo).conditions[0]["checkpoint"].tolist() == names
    fit_generator(config, tmp_path, name="fitted")
    asked = SampleConfig("fitted", count=8, condition=("checkpoint=each",))
    drawn = sample_networks(asked, tmp_path, name="drawn")
    assert drawn.columns["asked_checkpoint"].tolist() == sorted(names) * 2
    with pytest.raises(ConfigError, match="has '99': ask for checkpoint one of"):
        sample_networks(SampleConfig("fitted", condition=("checkpoint=99",)), tmp_path, name="no")


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"network": [0, 2], "epoch": [3, 3]}, ["0", "2"]),
        ({"network": [0, 0], "epoch": [3, 3], "step": [7, 8]}, ["0.7", "0.8"]),
        ({"network": [0, 0, 1], "epoch": [2, 3, 3]}, ["0.2", "0.3", "1.3"]),
    ],
)
def test_checkpoints_are_named_by_what_tells_them_apart(make_zoo, monkeypatch, columns, names):
    zoo = make_zoo(3)
    told = {key: np.array(each) for key, each in columns.items()}
    monkeypatch.setitem(vars(zoo), "columns", told)
    assert told_of(zoo, "checkpoint", rows=np.arange(len(names))).tolist() == names


def test_checkpoints_of_two_zoos_are_refused(by_words, tmp_path):
    density = dataclasses.replace(by_words.density, condition=("data", "checkpoint"))
    with pytest.raises(ConfigError, match="mnist, fashion count their networks alike"):
        plan(dataclasses.replace(by_words, density=density), tmp_path, name="g")
