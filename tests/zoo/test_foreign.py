"""Zoos of networks that a user wrote: what is refused before training, and what is recorded.

The other process of a trial is this one, but in one test; see `tests/networks/test_sound.py`.
"""

import dataclasses

import numpy as np
import pytest
import torch

from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError
from dwf.networks.config import PythonConfig
from dwf.networks.functional import score_networks
from dwf.networks.sound import elsewhere
from dwf.zoo import misfit, stage
from dwf.zoo.config import RecipeConfig, SplitConfig, ZooComputeConfig, ZooConfig
from dwf.zoo.facts import Facts
from dwf.zoo.store import Zoo

DATA = DataConfig("digits", train_images=258)
RECIPE = RecipeConfig(epochs=2, batch_size=32, learning_rate=0.01)
PLAIN = ZooComputeConfig("cpu", channels_last=False)
THERE = elsewhere.examine_elsewhere


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setattr(elsewhere, "examine_elsewhere", lambda trial: trial.findings())


def settings(name: str, **more) -> ZooConfig:
    usual = {"count": 4, "shard": 4, "cohort": 1, "recipe": RECIPE, "compute": PLAIN, "data": DATA}
    usual |= {"split": SplitConfig(0.0, 0.25)}
    return ZooConfig(network=PythonConfig(f"tests.networks.cases:{name}"), **usual | more)


def scores(zoo: Zoo) -> np.ndarray:
    """Test accuracies of a zoo's rows, from its files alone."""
    data = zoo.load_data()
    state = zoo.layout.unflatten(torch.from_numpy(zoo.read()))
    return score_networks(zoo.build_network(), state, data=data, part=data.test).accuracy_N


def test_a_sound_network_is_tried_once_and_that_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "examine_elsewhere", THERE)
    zoo = stage.train_zoo(settings("Base"), tmp_path, name="zoo")
    assert len(zoo.facts.sound.source) == 16
    assert Facts.read(zoo.path) == zoo.facts
    np.testing.assert_array_equal(scores(zoo), zoo.columns["test_accuracy"])

    def never(*_, **__):
        raise AssertionError("tried again")

    monkeypatch.setattr(misfit, "refuse_unsound", never)
    monkeypatch.setattr(misfit, "source_digest", never)
    assert len(stage.train_zoo(settings("Base"), tmp_path, name="zoo")) == 4


def test_an_unsound_one_leaves_no_folder(tmp_path):
    with pytest.raises(ConfigError, match="perm is in no row"):
        stage.train_zoo(settings("RandomIndex"), tmp_path, name="zoo")
    assert not list(tmp_path.iterdir())


def test_a_network_whose_source_changes_is_tried_again(tmp_path, monkeypatch, caplog):
    config, tried = settings("Base"), []
    zoo = stage.train_zoo(config, tmp_path, name="zoo")
    zoo.shards[0].path.unlink()
    monkeypatch.setattr(misfit, "refuse_unsound", lambda *_, **__: tried.append(1))
    stage.train_zoo(config, tmp_path, name="zoo")
    assert not tried and "source" not in caplog.text
    zoo.shards[0].path.unlink()
    monkeypatch.setattr(misfit, "source_digest", lambda *_: "0" * 16)
    stage.train_zoo(config, tmp_path, name="zoo")
    assert tried == [1] and "tests.networks.cases:Base is another than when" in caplog.text


def test_networks_that_write_into_their_inputs_are_trained_as_their_twins(tmp_path):
    """One by one and batched, with images that all share."""
    shared = dataclasses.replace(RECIPE, data_order="shared")
    for cohort in (1, 4):
        more = {"cohort": cohort, "recipe": shared}
        written, apart = (
            stage.train_zoo(settings(name, **more), tmp_path, name=f"{name}-{cohort}")
            for name in ("InPlace", "ApartFromInPlace")
        )
        assert np.array_equal(written.read(), apart.read())
        assert np.array_equal(written.columns["test_loss"], apart.columns["test_loss"])
        np.testing.assert_array_equal(scores(written), written.columns["test_accuracy"])
