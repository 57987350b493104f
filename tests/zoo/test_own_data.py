"""A zoo on the user's own data: it names them without a path, and later stages find them."""

import json

import numpy as np
import pytest
import yaml

from dwf import data_paths
from dwf.datasets.config import ArraysConfig, DataConfig
from dwf.errors import ConfigError, DataUnavailable, RunConflict
from dwf.networks.config import MLPConfig
from dwf.settings import parse
from dwf.zoo.config import RecipeConfig, ZooConfig
from dwf.zoo.stage import plan, train_zoo
from dwf.zoo.store import Zoo

RECIPE = RecipeConfig(epochs=1, batch_size=16)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv(data_paths.ENVIRONMENT, "")


def save(path, seed=0, classes=3):
    stream = np.random.default_rng(seed)
    x, y = stream.integers(0, 256, (60, 4, 4), np.uint8), np.arange(60) % classes + 1
    np.savez(path, x_train=x, y_train=y)
    return path


def config_of(path, widths=(16, 8, 3), name=None):
    data = ArraysConfig(path=path, name=name, validation=0.2)
    return ZooConfig(network=MLPConfig(widths), data=data, count=4, recipe=RECIPE)


def test_a_zoo_names_its_data_by_digest_and_finds_them_anywhere(tmp_path, monkeypatch):
    path = save(tmp_path / "mine.npz")
    assert "4 networks of 163 weights on mine.npz" in plan(config_of(path), tmp_path, name="z")
    zoo = train_zoo(config_of(path), tmp_path, name="z")
    told = json.loads((zoo.path / "zoo.json").read_text())
    assert (told["data"]["name"], told["data"]["path"]) == ("mine.npz", None)
    assert told["input_shape"] == [1, 4, 4] and len(told["data"]["sha256"]) == 64
    for file in [zoo.path / "zoo.json", zoo.path / "run/config.yaml"]:
        assert str(tmp_path) not in file.read_text()
    moved = path.rename(tmp_path / "moved.npz")
    images = Zoo.open(zoo.path).load_data().train.images
    assert len(train_zoo(config_of(moved, name="mine.npz"), tmp_path, name="z")) == 4
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "empty"))
    with pytest.raises(DataUnavailable, match=r"--data-path mine.npz=FILE"):
        zoo.load_data()
    file = tmp_path / "z.yaml"
    file.write_text(yaml.safe_dump({"network": {"kind": "mlp", "widths": [64, 10]}, "count": 1}))
    argv = ["--config", str(file), "--data.kind", "digits", "--data-path", f"mine.npz={moved}"]
    file.write_text(file.read_text() + "data: {kind: mnist}\n")
    assert parse(ZooConfig, "", argv=argv).config.data == DataConfig("digits")
    assert zoo.load_data().train.images.equal(images)


def test_a_misfit_is_told_before_anything_is_written(tmp_path):
    path = save(tmp_path / "mine.npz", classes=5)
    for widths, said in (
        ((16, 8, 3), "5 classes: give 16 first and 5 last"),
        ((9, 8, 5), "give 16 first and 5 last"),
    ):
        with pytest.raises(ConfigError, match=said):
            train_zoo(config_of(path, widths), tmp_path, name="z")
    assert not (tmp_path / "zoos").exists()


def test_other_data_of_the_same_name_are_other_settings(tmp_path):
    path = save(tmp_path / "mine.npz")
    train_zoo(config_of(path), tmp_path, name="z")
    save(path, seed=1)
    with pytest.raises(RunConflict, match=r"data\.sha256"):
        train_zoo(config_of(path), tmp_path, name="z")
