"""Which rows codec and density learn from."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from dwf.codecs.config import FlatConfig, NeuronsConfig
from dwf.densities.config import KdeConfig
from dwf.errors import ConfigError, NotAZoo, RunConflict, ShapeMismatch
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.learning import (
    choice_facts,
    learning_of_codec,
    learning_of_density,
    origin_facts,
)
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.settings import build
from dwf.zoo.facts import BLOCKS_OF_STEPS
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, split_networks, write_zoo
from tests.zoos import facts_of

NUM_NETWORKS, EPOCHS = 10, (0, 1, 2)


@pytest.fixture
def make_epochs(tmp_path):
    """Write a zoo of three rows of each network: `make_epochs(**columns) -> Zoo`."""

    def make(name: str = "small", seed: int = 0, **columns: np.ndarray) -> Zoo:
        config = MLPConfig((64, 8, 10))
        layout = Layout.of(build_network(config))
        num = NUM_NETWORKS * len(EPOCHS)
        weights = np.random.default_rng(seed).standard_normal((num, layout.size))
        columns |= {
            "network": np.repeat(np.arange(NUM_NETWORKS), len(EPOCHS)),
            "epoch": np.tile(np.array(EPOCHS, np.int32), NUM_NETWORKS),
            "split": np.repeat(split_networks(NUM_NETWORKS, 0.2, test=0.2, seed=0), len(EPOCHS)),
        }
        blocks = [(columns, weights.astype(np.float32))]
        return write_zoo(
            tmp_path / "zoos" / name,
            facts_of(layout, config, seed=seed),
            num_rows=num,
            blocks=blocks,
        )

    return make


CONFIG = GeneratorConfig("small", codec=FlatConfig(), density=KdeConfig(mode="joint"))


def rows_of(learning) -> tuple[list[int], list[int]]:
    return tuple(part[0][1].tolist() for part in (learning.train, learning.val))


def test_epochs_are_those_of_the_settings(make_epochs, tmp_path):
    zoo = make_epochs()
    table = {(1, 1): {1}, "last": {2}, "all": {0, 1, 2}, (0, 2): {0, 2}, (1,): {1}}
    for epochs, wanted in table.items():
        config = dataclasses.replace(CONFIG, epochs=epochs)
        for learning in (
            learning_of_codec(config, zoo, zoos=tmp_path),
            learning_of_density(config, zoo),
        ):
            for split, rows in zip(("train", "val"), rows_of(learning), strict=True):
                is_wanted = np.isin(zoo.columns["epoch"], list(wanted))
                assert rows == np.flatnonzero(is_wanted & (zoo.columns["split"] == split)).tolist()
    with pytest.raises(ConfigError, match=r"epochs = \[1, 7\]: .*small have the epochs 0, 1, 2"):
        learning_of_density(dataclasses.replace(CONFIG, epochs=(1, 7)), zoo)
    with pytest.raises(ConfigError, match=r"epochs = \[\]"):
        learning_of_density(dataclasses.replace(CONFIG, epochs=()), zoo)


def test_rows_of_one_network_are_cut_apart_by_blocks_of_its_steps(tmp_path):
    layout = Layout.of(build_network(MLPConfig((4, 2))))
    columns = {
        "network": np.zeros(6, int),
        "epoch": np.arange(6, dtype=np.int32),
        "split": np.repeat(["train", "val"], 3),
    }
    blocks = [(columns, np.ones((6, layout.size), np.float32))]
    zoo = write_zoo(
        tmp_path / "steps", facts_of(layout, split_by=BLOCKS_OF_STEPS), num_rows=6, blocks=blocks
    )
    for epochs, train, val in (("last", [0, 1, 2], [3, 4, 5]), ((2, 0), [0, 2], [])):
        config = dataclasses.replace(CONFIG, epochs=epochs)
        assert rows_of(learning_of_density(config, zoo)) == (train, val)
    with pytest.raises(ConfigError, match=r"epochs = \[1, 4\]: the training .* epochs 0, 1, 2:"):
        learning_of_density(dataclasses.replace(CONFIG, epochs=(1, 4)), zoo)


def test_epochs_are_read_from_settings():
    for given, found in (("all", "all"), ([21, 22], (21, 22)), ("last", "last")):
        assert build(GeneratorConfig, {"zoo": "z", "epochs": given}, source="file").epochs == found
    for wrong in ("first", [-1], 5, 2.5):
        with pytest.raises(ConfigError, match="epochs"):
            build(GeneratorConfig, {"zoo": "z", "epochs": wrong}, source="file")


def test_the_best_share_is_what_the_density_learns_from(make_epochs, tmp_path):
    accuracy = np.random.default_rng(1).permutation(30) / 30
    accuracy[4] = np.nan
    zoo = make_epochs(val_accuracy=accuracy)
    config = dataclasses.replace(CONFIG, best=0.3, epochs="all")
    train = zoo.rows("train")
    order = sorted(train.tolist(), key=lambda row: -np.nan_to_num(accuracy[row], nan=-1))
    found, val = rows_of(learning_of_density(config, zoo))
    assert found == sorted(order[:6])  # 0.3 of 18 rows, rounded up
    assert val == zoo.rows("val").tolist()
    assert rows_of(learning_of_codec(config, zoo, zoos=tmp_path))[0] == train.tolist()
    with pytest.raises(ConfigError, match="no column val_accuracy"):
        learning_of_density(config, make_epochs("bare"))
    nothing = make_epochs("nothing", val_accuracy=np.full(30, np.nan))  # no validation images
    with pytest.raises(ConfigError, match=r"no row of .*nothing to learn from has a val_accuracy"):
        learning_of_density(config, nothing)


def test_anchors_are_the_best_and_the_codec_knows_all(make_epochs, tmp_path):
    zoo = make_epochs(val_accuracy=np.random.default_rng(1).permutation(30) / 30)
    config = dataclasses.replace(CONFIG, best=0.5)
    generator = fit_generator(config, tmp_path, name="fitted")
    last = zoo.rows("train", "last")
    best = np.sort(last[np.argsort(-zoo.columns["val_accuracy"][last])[:3]])
    expected = generator.codec.encode(torch.from_numpy(zoo.read(best)), zoo.layout)
    assert torch.equal(generator.density.values_NTC[:, :, 0], expected.values)
    assert generator.codec.facts["networks"] == 6
    summary = json.loads((tmp_path / "runs" / "fitted" / "done.json").read_text())
    assert summary["density"]["anchors"] == 3 and summary["density"]["val_networks"] == 2
    assert len(sample_networks(SampleConfig("fitted", count=2), tmp_path, name="drawn")) == 2


def test_the_codec_learns_from_more_zoos(make_epochs, tmp_path):
    zoo, more = make_epochs(), make_epochs("more", seed=1)
    config = dataclasses.replace(CONFIG, codec_zoos=("more",))
    learning = learning_of_codec(config, zoo, zoos=tmp_path / "zoos")
    assert [each.name for each, _ in learning.train] == ["small", "more"]
    assert learning.train[1][1].tolist() == more.rows("train", "last").tolist()
    assert len(learning_of_density(config, zoo).train) == 1
    generator = fit_generator(config, tmp_path, name="fitted")
    assert generator.codec.facts["networks"] == 12
    both = np.concatenate([each.read(each.rows("train", "last")) for each in (zoo, more)])
    np.testing.assert_allclose(
        generator.codec.arrays["template_D"], both.astype(np.float64).mean(0), rtol=1e-5, atol=1e-6
    )
    assert len(generator.density.rows_A) == 6
    make_epochs("more", seed=2)  # other networks under this name
    with pytest.raises(RunConflict, match="learnt from rows of fingerprints"):
        fit_generator(config, tmp_path, name="fitted")


def test_zoos_that_cannot_be_learnt_from_together_are_refused(make_epochs, make_zoo, tmp_path):
    make_epochs()
    make_zoo(widths=(64, 4, 10), name="other")
    for zoos, error, said in (
        (("small",), ConfigError, "each zoo once"),
        (("none",), NotAZoo, "none is not a zoo"),
        (("other",), ShapeMismatch, "other has layout"),
    ):
        with pytest.raises(error, match=said):
            fit_generator(dataclasses.replace(CONFIG, codec_zoos=zoos), tmp_path, name="fitted")


def test_the_origin_tells_of_other_rows_alone(make_epochs, tmp_path):
    zoo = make_epochs(val_accuracy=np.arange(30) / 30)

    def told(**settings):
        config = dataclasses.replace(CONFIG, **settings)
        of_codec = learning_of_codec(config, zoo, zoos=tmp_path)
        return choice_facts(config, of_codec, density=learning_of_density(config, zoo))

    assert told() == {}
    last = origin_facts(zoo, 0)["fingerprint"]
    best, every = told(best=0.5)["learnt"], told(epochs="all")["learnt"]
    assert best["codec"] == {"small": last} and best["density"]["small"] != last
    assert every["codec"] == every["density"] and every["codec"]["small"] != last


def test_other_rows_are_another_generator(make_epochs, tmp_path):
    make_epochs(val_accuracy=np.arange(30) / 30)
    tokens = dataclasses.replace(CONFIG, codec=NeuronsConfig(), density=KdeConfig())
    digests = {
        fit_generator(dataclasses.replace(tokens, **settings), tmp_path, name=str(i)).digest
        for i, settings in enumerate(({}, {"best": 0.5}, {"epochs": "all"}, {"epochs": (1,)}))
    }
    assert len(digests) == 4
