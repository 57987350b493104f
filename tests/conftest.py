"""What every test shares: one thread, no stray signals, small zoos of random networks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.settings import to_dict
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, split_networks, write_zoo

torch.set_num_threads(1)


@pytest.fixture
def make_zoo(tmp_path):
    """Write a zoo of random networks: `make_zoo(count, widths) -> Zoo`."""

    def make(count: int = 12, widths=(64, 16, 10), name: str = "small", seed: int = 0) -> Zoo:
        config = MLPConfig(tuple(widths))
        layout = Layout.of(build_network(config))
        rng = np.random.default_rng(seed)
        weights = rng.standard_normal((count, layout.size)).astype(np.float32)
        columns = {
            "network": np.arange(count),
            "epoch": np.ones(count, np.int32),
            "split": split_networks(count, 0.2, 0.2, seed),
        }
        facts = {"network": to_dict(config), "data": {"kind": "digits"}, "seed": seed}
        path: Path = tmp_path / "zoos" / name
        return write_zoo(path, layout, count, [(columns, weights)], **facts)

    return make
