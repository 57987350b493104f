"""Zoos of networks drawn at random, with properties that their weights or columns tell."""

from pathlib import Path

import numpy as np
import torch

from dwf.networks.config import MLPConfig, NetworkConfig
from dwf.networks.functional import build_network
from dwf.predictors.examples import Examples
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo
from tests.zoos import facts_of, write_rows

MLP = MLPConfig((8, 6, 4))


def layout_of(config: NetworkConfig) -> Layout:
    with torch.device("meta"):
        return Layout.of(build_network(config))


def made_zoo(
    folder: Path,
    config: NetworkConfig = MLP,
    *,
    count: int = 40,
    seed: int = 0,
    weights: np.ndarray | None = None,
    columns: dict[str, np.ndarray] | None = None,
    **told,
) -> Zoo:
    """Networks whose numbers are drawn normally, each with a scale and a shift of its own."""
    layout, rng = layout_of(config), np.random.default_rng(seed)
    if weights is None:
        weights = rng.normal(size=(count, layout.size)) * rng.uniform(0.5, 2, (count, 1))
        weights += rng.normal(size=(count, 1))
    return write_rows(folder, facts_of(layout, config, **told), weights, columns)


def split(zoo: Zoo, values_N: np.ndarray, num_val: int) -> tuple[Examples, Examples]:
    """The last networks are held out; `values_N` and a tenth of it are to be told."""
    values_NP = np.stack([values_N, values_N / 10 + 3], 1).astype(np.float64)
    cut = len(zoo) - num_val
    return tuple(
        Examples([(zoo, np.arange(len(zoo))[part])], ("value", "tenth"), values_NP[part])
        for part in (slice(cut), slice(cut, None))
    )
