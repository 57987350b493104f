"""Zoos of several architectures, their numbers drawn at random."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from dwf.networks.config import (
    CifarResNetConfig,
    CNNConfig,
    ConvNeXtConfig,
    DenseNetConfig,
    MLPConfig,
    NetworkConfig,
    PythonConfig,
    ViTConfig,
)
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from dwf.zoo.shard import shard_name, write_shard
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, split_networks
from tests.zoos import facts_of

CNN3 = CNNConfig(
    (16, 32, 15), (3, 32, 32), pools=2, pool_first=True, activation="gelu", hidden=(20,)
)
"""The published CNN of 10,853 numbers."""
ARCHITECTURES: dict[str, tuple[NetworkConfig, tuple[int, ...]]] = {
    "mlp": (MLPConfig((64, 16, 12, 10)), (1, 8, 8)),
    "cnn": (CNNConfig((6, 8), (3, 10, 10), hidden=(9,)), (3, 10, 10)),
    "grouped": (CNNConfig((8, 8, 6), (3, 12, 12), groups=(1, 2, 2), norm="batch"), (3, 12, 12)),
    "resnet": (CifarResNetConfig(8, width=4), (3, 16, 16)),
    "vit": (ViTConfig(image=8, width=12, depth=2), (3, 8, 8)),
    "densenet": (DenseNetConfig((2, 1), growth=2), (3, 32, 32)),
    "python": (PythonConfig("tests.codecs.zoos:own_network"), (2, 6, 6)),
    "convnext": (ConvNeXtConfig((4, 6), (1, 1)), (3, 16, 16)),
}


def layout_of(config: NetworkConfig) -> Layout:
    """Layout of an architecture, without its numbers."""
    with torch.device("meta"):
        return Layout.of(build_network(config))


def write_random_zoo(
    path: Path,
    config: NetworkConfig,
    shape: tuple[int, ...],
    count: int = 6,
    num_shards: int = 1,
    seed: int = 0,
) -> Zoo:
    """Write a zoo of networks whose numbers, running statistics included, are drawn normally."""
    layout = layout_of(config)
    weights = np.random.default_rng(seed).standard_normal((count, layout.size), np.float32)
    columns = {
        "network": np.arange(count),
        "epoch": np.ones(count, np.int32),
        "split": split_networks(count, 0.2, test=0.2, seed=seed),
    }
    facts = facts_of(layout, config, num_shards=num_shards, input_shape=shape, seed=seed)
    create_zoo(path, facts)
    for i, rows in enumerate(np.array_split(np.arange(count), num_shards)):
        block = ({name: values[rows] for name, values in columns.items()}, weights[rows])
        file = path / shard_name(i, num_shards)
        write_shard(file, facts, index=i, num_rows=len(rows), blocks=[block])
    return finish_zoo(path)


def own_network() -> nn.Module:
    """A network of a user's own."""
    layers = (nn.Conv2d(2, 5, 3), nn.GroupNorm(1, 5), nn.Tanh(), nn.Flatten(), nn.Linear(80, 3))
    return nn.Sequential(*layers)


class Summed(nn.Module):
    """Units that are summed up one after the other: its symmetries cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cumsum(self.first(x.flatten(1)), 1))


class Unusual(nn.Module):
    """Tensors that are no layer's weight: a lone bias, a scalar, a layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))
        self.shift = nn.Parameter(torch.ones(1, 1, 5))
        self.places = nn.Parameter(torch.ones(1, 3, 5))
        self.lone_bias = nn.Parameter(torch.ones(4))
        self.one = nn.Linear(7, 1)
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.LayerNorm([3, 4])
