"""A zoo of trained MLPs on the digits, once for all tests here."""

import shutil
from pathlib import Path

import pytest

from dwf.datasets.config import DataConfig
from dwf.networks.config import MLPConfig
from dwf.zoo.config import RecipeConfig, SplitConfig, ZooConfig
from dwf.zoo.stage import train_zoo

DATA = DataConfig("digits", validation=0.2)
NUM = 10


@pytest.fixture(scope="session")
def made_root(tmp_path_factory) -> Path:
    """`zoos/z`: ten MLPs, two epochs of each kept."""
    root = tmp_path_factory.mktemp("measurements")
    recipe = RecipeConfig(epochs=3, batch_size=32, learning_rate=0.01)
    config = ZooConfig(
        MLPConfig((64, 8, 10)),
        DATA,
        NUM,
        recipe=recipe,
        split=SplitConfig(val=0.1, test=0.2),
        keep_epochs=(1, 3),
    )
    train_zoo(config, root, name="z")
    return root


@pytest.fixture
def root(made_root, tmp_path) -> Path:
    """The same zoo, for a test to write beside."""
    without = shutil.ignore_patterns("measured")
    shutil.copytree(made_root / "zoos", tmp_path / "zoos", symlinks=True, ignore=without)
    return tmp_path
