"""Zoos with structure to find: networks near a low-rank subspace, in one shard or several."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from dwf.run_folder import RunFolder
from dwf.trust import trust_code
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, shard_name, split_networks, write_shard
from tests.zoos import facts_of


@pytest.fixture(autouse=True)
def own_networks_are_named(nothing_is_trusted):
    trust_code("tests.codecs.zoos:own_network", "tests.codecs.zoos:Summed")


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "test", {"any": "settings"})


@pytest.fixture
def plant_zoo(tmp_path):
    """Write a zoo of networks near a subspace: `plant_zoo(count, num_shards) -> Zoo`."""

    def plant(
        count: int = 20,
        num_shards: int = 1,
        batchnorm: bool = False,
        name: str = "planted",
        hidden: int = 6,
    ) -> Zoo:
        norm = [nn.BatchNorm1d(hidden)] if batchnorm else []
        layout = Layout.of(nn.Sequential(nn.Linear(9, hidden), *norm, nn.Linear(hidden, 4)))
        rng = np.random.default_rng(0)
        spread = rng.standard_normal((count, 5)) * [9, 5, 3, 2, 1]
        weights = spread @ rng.standard_normal((5, layout.size)) + 40
        weights += 0.1 * rng.standard_normal(weights.shape)
        weights = weights.astype(np.float32)
        columns = {
            "network": np.arange(count),
            "epoch": np.ones(count, np.int32),
            "split": split_networks(count, 0.2, test=0.2, seed=0),
        }
        path: Path = tmp_path / "zoos" / name
        facts = facts_of(layout, num_shards=num_shards)
        create_zoo(path, facts)
        for i, rows in enumerate(np.array_split(np.arange(count), num_shards)):
            block = ({key: values[rows] for key, values in columns.items()}, weights[rows])
            file = path / shard_name(i, num_shards)
            write_shard(file, facts, index=i, num_rows=len(rows), blocks=[block])
        return finish_zoo(path)

    return plant
