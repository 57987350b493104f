"""Zoos that are exported, and the library call in few words."""

from pathlib import Path

import numpy as np
import pytest

import dwf
from dwf.exporters.config import ExportConfig
from dwf.networks.config import NetworkConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo
from tests.zoos import facts_of


@pytest.fixture
def zoo(make_zoo) -> Zoo:
    """Twelve MLPs with accuracies, the best on validation images not the best on test images."""
    rng = np.random.default_rng(1)
    return make_zoo(val_accuracy=rng.random(12), test_accuracy=rng.random(12))


@pytest.fixture
def zoo_of(tmp_path):
    """Write networks of any architecture, their head and running statistics drawn, too."""

    def make(config: NetworkConfig, count: int, name: str = "any", shape=None, **more) -> Zoo:
        layout = Layout.of(build_network(config))
        rng = np.random.default_rng(0)
        weights_ND = 0.1 * rng.standard_normal((count, layout.size), dtype=np.float32)
        for entry in layout.entries:
            if entry.role == "buffer":
                part = weights_ND[:, entry.offset : entry.stop]
                part[:] = np.abs(part) + 0.5
        columns = {"network": np.arange(count), "epoch": np.ones(count, np.int32)}
        columns |= {"split": np.full(count, "train")} | more
        told = {} if shape is None else {"input_shape": shape}
        block, facts = (columns, weights_ND), facts_of(layout, config, **told)
        path = tmp_path / "zoos" / name
        return write_zoo(path, facts, num_rows=count, blocks=[block])

    return make


@pytest.fixture
def export(tmp_path):
    """Export to tmp_path/NAME: `export(zoo, "npz", name, ...) -> folder`."""

    def call(zoo: Zoo, kind: str = "safetensors", name: str = "out", **settings) -> Path:
        config = ExportConfig(zoo.name, kind, to=str(tmp_path / name), **settings)
        return dwf.export_networks(config, tmp_path, name="unused")

    return call
