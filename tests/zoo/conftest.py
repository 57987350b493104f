"""Zoos of several shards, written without training."""

from pathlib import Path

import numpy as np
import pytest

from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.config import RecipeConfig
from dwf.zoo.layout import Layout
from dwf.zoo.provenance import Trained
from dwf.zoo.shard import shard_name, write_shard
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, split_networks
from tests.zoos import facts_of


@pytest.fixture
def make_sharded(tmp_path):
    """Write `make_sharded(name, sizes)`: one shard per size, two epochs per network."""

    def make(name: str, sizes=(5, 0, 4, 3), seed: int = 0, widths=(6, 5, 3), **facts) -> Zoo:
        config = MLPConfig(tuple(widths))
        layout = Layout.of(build_network(config))
        path: Path = tmp_path / "zoos" / name
        count = sum(sizes) + 1  # one diverged, in the last shard
        said = {"seed": seed, "count": count, "recipe": RecipeConfig(epochs=2)}
        said |= {"provenance": Trained("dwf 0")} | facts
        own = facts_of(layout, config, num_shards=len(sizes), **said)
        create_zoo(path, own)
        splits, rng, first = (
            split_networks(count, 0.3, test=0.2, seed=seed),
            np.random.default_rng(seed),
            0,
        )
        for index, size in enumerate(sizes):
            networks = np.repeat(np.arange(first, first + size), 2)
            columns = {
                "network": networks,
                "epoch": np.tile(np.array([1, 2], np.int32), size),
                "split": splits[networks],
                "train_accuracy": rng.random(2 * size),
                "val_accuracy": rng.random(2 * size),
                "test_accuracy": rng.random(2 * size),
            }
            weights = rng.standard_normal((2 * size, layout.size), dtype=np.float32) + 3
            lost = [(count - 1, 7, "loss not finite")] if index == len(sizes) - 1 else []
            given = [(columns, weights)] if size else []
            target = path / shard_name(index, len(sizes))
            write_shard(
                target,
                own,
                index=index,
                num_rows=2 * size,
                blocks=given,
                diverged=lost,
            )
            first += size
        return finish_zoo(path)

    return make
