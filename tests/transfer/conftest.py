"""A zoo of trained MLPs on the digits, that zoo aligned, and samples: once for all tests here."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.datasets.config import DataConfig
from dwf.evaluation.report.figures import STYLE
from dwf.generators.learning import origin_facts
from dwf.networks.config import MLPConfig
from dwf.zoo.config import RecipeConfig, SplitConfig, ZooConfig
from dwf.zoo.stage import train_zoo
from dwf.zoo.store import Zoo, write_zoo
from tests.zoos import bare_facts, sampled

DATA = DataConfig("digits", validation=0.2)
NUM = 20


@pytest.fixture(autouse=True, scope="module")
def coarse_figures():
    """Figures of few pixels: drawn and written like all others, in less time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(STYLE, "savefig.dpi", 20)
        yield


@pytest.fixture(scope="session")
def made_root(tmp_path_factory) -> Path:
    """`zoos/z` (trained), `zoos/z-aligned`, `zoos/s` (its networks with noise)."""
    root = tmp_path_factory.mktemp("transfer")
    recipe = RecipeConfig(epochs=4, batch_size=32, learning_rate=0.01)
    split = SplitConfig(val=0.1, test=0.2)
    config = ZooConfig(MLPConfig((64, 8, 10)), DATA, NUM, recipe=recipe, split=split)
    train_zoo(config, root, name="z")
    zoo = align_zoo(AlignConfig("z", num_pairs=2), root, name="z-aligned")
    write_samples(root, zoo, "s", count=7)
    return root


def write_samples(root: Path, zoo: Zoo, name: str, *, count: int) -> Zoo:
    """Write networks near the first of a zoo, as a generator's samples."""
    rng = np.random.default_rng(1)
    weights_SD = zoo.read(np.arange(count)) + 0.05 * rng.standard_normal((count, zoo.layout.size))
    origin = {"zoo": zoo.name, "zoo_fingerprint": origin_facts(zoo, 0)["fingerprint"]}
    facts = replace(bare_facts(zoo), provenance=sampled(**origin))
    columns = {"network": np.arange(count), "epoch": np.zeros(count, np.int64)}
    columns |= {"split": np.full(count, "sample")}
    block = (columns, weights_SD.astype(np.float32))
    return write_zoo(root / "zoos" / name, facts, num_rows=count, blocks=[block])


@pytest.fixture
def root(made_root, tmp_path) -> Path:
    """The same zoos, for a test to write beside."""
    shutil.copytree(made_root / "zoos", tmp_path / "zoos", symlinks=True)
    return tmp_path
