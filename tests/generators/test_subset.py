"""A part of the training networks is learnt from: against rows and means found by hand."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from dwf.codecs.config import FlatConfig, NeuronsConfig, PcaConfig
from dwf.densities.config import GaussianConfig, KdeConfig
from dwf.errors import ConfigError, RunConflict
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.generator import read_head
from dwf.generators.learning import learning_of_codec, learning_of_density
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator, plan
from dwf.generators.subset import Subset, rows_learnt_from
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.settings import build
from dwf.zoo.facts import BLOCKS_OF_STEPS
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, split_networks, write_zoo
from tests.zoos import facts_of

CONFIG = GeneratorConfig("z", codec=FlatConfig(), density=GaussianConfig())
NUM = 20
SPLIT = split_networks(NUM, 0.2, test=0.2, seed=0)
TRAINING = np.flatnonzero(SPLIT == "train")  # 12 networks


def changed(**settings) -> GeneratorConfig:
    return dataclasses.replace(CONFIG, **settings)


@pytest.fixture
def make_epochs(tmp_path):
    """Write a zoo of two rows of each network, numbered from 100: `make_epochs(name) -> Zoo`."""

    def make(name="z", widths=(4, 3), seed=0) -> Zoo:
        config = MLPConfig(widths)
        layout = Layout.of(build_network(config))
        rng = np.random.default_rng(seed)
        columns = {
            "network": np.repeat(np.arange(NUM) + 100, 2),
            "epoch": np.tile(np.array([1, 2], np.int32), NUM),
            "split": np.repeat(SPLIT, 2),
            "val_accuracy": rng.permutation(2 * NUM) / (2 * NUM),
        }
        weights_ND = rng.standard_normal((2 * NUM, layout.size)).astype(np.float32)
        facts = facts_of(layout, config, seed=seed)
        return write_zoo(
            tmp_path / "zoos" / name, facts, num_rows=2 * NUM, blocks=[(columns, weights_ND)]
        )

    return make


@pytest.fixture
def steps(tmp_path) -> Zoo:
    """A zoo of one network: 12 steps to train on, 4 for validation, at two epochs in turn."""
    config = MLPConfig((4, 3))
    layout = Layout.of(build_network(config))
    columns = {
        "network": np.zeros(16, int),
        "epoch": np.tile(np.array([1, 2], np.int32), 8),
        "step": np.arange(16),
        "split": np.repeat(["train", "val"], [12, 4]),
    }
    weights_ND = np.random.default_rng(0).standard_normal((16, layout.size)).astype(np.float32)
    facts = facts_of(layout, config, split_by=BLOCKS_OF_STEPS)
    return write_zoo(tmp_path / "zoos" / "z", facts, num_rows=16, blocks=[(columns, weights_ND)])


def test_the_first_networks_are_the_first_of_the_training_split(make_epochs, tmp_path):
    zoo = make_epochs()
    for config in (changed(networks=5), changed(networks=5, seed=9)):
        for learning in (
            learning_of_codec(config, zoo, zoos=tmp_path),
            learning_of_density(config, zoo),
        ):
            ((_, rows),), ((_, val),) = learning.train, learning.val
            assert rows.tolist() == (2 * TRAINING[:5] + 1).tolist()
            assert zoo.columns["network"][rows].tolist() == (100 + TRAINING[:5]).tolist()
            assert val.tolist() == zoo.rows("val", "last").tolist(), "choices see all, as ever"


def test_random_networks_follow_from_the_seed_and_fewer_are_among_more(make_epochs):
    zoo = make_epochs()

    def drawn(count, seed):
        config = changed(networks=count, networks_by="random", seed=seed)
        rows = learning_of_density(config, zoo).train[0][1]
        assert len(set(rows)) == count and set(rows) <= set(2 * TRAINING + 1)
        assert (np.diff(rows) > 0).all()
        return set(rows)

    assert drawn(4, 0) == drawn(4, 0) and drawn(4, 0) < drawn(7, 0)
    assert len({frozenset(drawn(4, seed)) for seed in range(20)}) > 15
    counts = np.sum([np.isin(2 * TRAINING + 1, list(drawn(6, s))) for s in range(200)], axis=0)
    assert (np.abs(counts - 100) < 4 * np.sqrt(200 * 0.25)).all(), "each as likely as others"


def test_all_epochs_of_the_networks_are_learnt_from_and_best_is_of_them(make_epochs, tmp_path):
    zoo = make_epochs()
    mine = np.sort(np.concatenate([2 * TRAINING[:6], 2 * TRAINING[:6] + 1]))
    config = changed(networks=6, epochs="all", best=0.5)
    assert learning_of_codec(config, zoo, zoos=tmp_path).train[0][1].tolist() == mine.tolist()
    accuracy = zoo.columns["val_accuracy"]
    best = sorted(mine, key=lambda row: -accuracy[row])[:6]
    assert learning_of_density(config, zoo).train[0][1].tolist() == sorted(best)
    first_epoch = learning_of_density(changed(networks=6, epochs=(1,)), zoo).train[0][1]
    assert first_epoch.tolist() == (2 * TRAINING[:6]).tolist()


def test_codec_and_density_learn_from_these_networks_alone(make_epochs, tmp_path):
    zoo = make_epochs()
    generator = fit_generator(changed(networks=7), tmp_path, name="g")
    weights_ND = zoo.read(2 * TRAINING[:7] + 1).astype(np.float64)
    template_D = generator.codec.arrays["template_D"]
    np.testing.assert_allclose(template_D, weights_ND.mean(0), rtol=1e-5, atol=1e-6)
    samples_SD = sample_networks(SampleConfig("g", count=4), tmp_path, name="s").read()
    _, _, axes_DD = np.linalg.svd(weights_ND - weights_ND.mean(0))
    places_SD = (samples_SD - weights_ND.mean(0)) @ axes_DD.T
    assert np.abs(places_SD[:, :6]).max() > 0.1 and np.abs(places_SD[:, 6:]).max() < 1e-5, (
        "a Gaussian stays in the span of what it learnt from"
    )


def test_each_of_more_zoos_gives_as_many_and_codec_zoos_all(make_epochs, tmp_path):
    zoo, more, other = make_epochs(), make_epochs("more", (5, 3)), make_epochs("other", seed=1)
    config = changed(networks=4, more_zoos=("more",), codec_zoos=("other",))
    learning = learning_of_codec(config, zoo, zoos=tmp_path / "zoos", more=[more])
    assert [len(rows) for _, rows in learning.train] == [4, 4, 12]
    assert learning.train[2][1].tolist() == other.rows("train", "last").tolist()
    for _, rows in learning_of_density(config, zoo, more=[more]).train:
        assert rows.tolist() == (2 * TRAINING[:4] + 1).tolist()


def test_more_networks_than_there_are_are_refused_with_both_numbers(make_epochs, steps):
    with pytest.raises(ConfigError, match=r"rows = 13: .*z has 12 training rows: give at most"):
        learning_of_density(changed(rows=13), steps)
    zoo = make_epochs("many")
    for settings in ({"networks": 13}, {"networks": 13, "networks_by": "random"}):
        with pytest.raises(ConfigError, match=r"networks = 13: .* has 12 training networks: give"):
            learning_of_density(changed(**settings), zoo)


def test_of_one_network_the_first_rows_are_learnt_from(steps, tmp_path):
    for learning in (
        learning_of_codec(changed(rows=5), steps, zoos=tmp_path),
        learning_of_density(changed(rows=5), steps),
    ):
        assert learning.train[0][1].tolist() == [0, 1, 2, 3, 4]
        assert learning.val[0][1].tolist() == [12, 13, 14, 15]
    config = changed(rows=5, epochs=(2,))
    assert learning_of_density(config, steps).train[0][1].tolist() == [1, 3]


def test_the_wrong_one_is_refused_by_name(make_epochs, steps):
    with pytest.raises(
        ConfigError, match=r"networks = 5: .*z is one network.*leave networks out and give rows"
    ):
        learning_of_density(changed(networks=5), steps)
    with pytest.raises(
        ConfigError, match=r"rows = 5: .*many has 12 training networks.*rows out and give networks"
    ):
        learning_of_density(changed(rows=5), make_epochs("many"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"networks": 5, "rows": 5}, "networks = 5 and rows = 5: .*give one of the two"),
        ({"networks_by": "random"}, "networks_by = random: no effect, as networks = none"),
        ({"networks": 0}, "networks"),
        ({"networks_by": "last", "networks": 3}, "networks_by"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given, said):
    with pytest.raises(ConfigError, match=said):
        build(GeneratorConfig, {"zoo": "z"} | given, source="file.yaml")


def test_what_was_learnt_from_is_told_and_is_part_of_the_digest(make_epochs, tmp_path):
    zoo = make_epochs()
    told = {
        "all": {},
        "first": {"networks": 5},
        "fewer": {"networks": 4},
        "random": {"networks": 5, "networks_by": "random", "seed": 3},
        "every": {"networks": 12},
    }
    origins, digests = {}, set()
    for name, settings in told.items():
        digests.add(fit_generator(changed(**settings), tmp_path, name=name).digest)
        origins[name] = read_head(tmp_path / "runs" / name)["origin"]
        samples = sample_networks(SampleConfig(name, count=1), tmp_path, name=f"{name}-s")
        assert samples.facts.sampled.subset == origins[name].get("subset")
        expected = TRAINING[:5] if name == "first" else None
        if expected is not None:
            assert rows_learnt_from(zoo, samples).tolist() == (2 * expected + 1).tolist()
    assert len(digests) == 5
    assert "subset" not in origins["all"] and "learnt" not in origins["all"]
    assert origins["first"]["subset"] == {"networks": 5, "by": "first"}
    assert origins["random"]["subset"] == {"networks": 5, "by": "random", "seed": 3}
    assert origins["first"]["networks"] == origins["all"]["networks"] == {"train": 12, "val": 4}
    assert len({one["fingerprint"] for one in origins.values()}) == 1, "that of the zoo"
    labels = {name: Subset.read(one).label for name, one in origins.items() if "subset" in one}
    assert labels["first"] == "first 5" and labels["random"] == "random 5, seed 3"


@pytest.mark.parametrize("given", [{"networks": 5}, {"networks": 6, "networks_by": "random"}])
def test_a_subset_is_read_as_it_was_told(given):
    one = Subset.of(changed(**given))
    assert Subset.read({"subset": json.loads(json.dumps(one.to_json()))}) == one
    assert Subset.of(CONFIG) is None and Subset.read({}) is None


def test_a_fit_goes_on_to_the_same_bytes_and_other_networks_are_another(make_epochs, tmp_path):
    make_epochs()
    config = changed(networks=6, networks_by="random", codec=PcaConfig(components=3), seed=2)
    fit_generator(config, tmp_path, name="g")
    run = tmp_path / "runs" / "g"

    def read():
        files = sorted(f for f in run.rglob("*") if f.suffix in (".npy", ".pt"))
        return {file: file.read_bytes() for file in [run / "generator.json", *files]}

    whole = read()
    shutil.rmtree(run / "density")  # as a kill between codec and density leaves it
    (run / "done.json").unlink()
    fit_generator(config, tmp_path, name="g")
    assert read() == whole
    assert {file.name for file in whole} > {"generator.json"} and len(whole) == 3
    with pytest.raises(RunConflict, match="networks = 6, this one has 7"):
        fit_generator(dataclasses.replace(config, networks=7), tmp_path, name="g")


def test_tokens_of_these_networks_alone_are_combined(make_zoo, tmp_path):
    zoo = make_zoo(name="z", widths=(64, 6, 10))
    config = changed(networks=4, codec=NeuronsConfig(), density=KdeConfig(mode="joint"))
    generator = fit_generator(config, tmp_path, name="g")
    assert generator.codec.facts["networks"] == 4 == len(generator.density.rows_A)
    assert len(zoo.rows("train")) > 4


def test_the_plan_tells_how_many_are_learnt_from(make_epochs, tmp_path):
    make_epochs()
    said = plan(changed(networks=5, codec=PcaConfig()), tmp_path, name="g")
    assert "\n5 training and 4 validation networks" in said and "pca codes of 4 " in said
