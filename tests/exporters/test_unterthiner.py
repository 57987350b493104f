"""The Small CNN Zoo's layout, read as its published notebook cuts it, against torch's layers."""

import ast
import csv
import gzip

import numpy as np
import pytest
import torch

from dwf.errors import ConfigError
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.networks.functional import run_networks

PUBLISHED = CNNConfig((16, 16, 16), (1, 28, 28), strides=2, head="average")
# Stretches of a row as published: bias before kernel, layer by layer.
CUTS = [(0, 16), (16, 160), (160, 176), (176, 2480), (2480, 2496), (2496, 4800), (4800, 4810)]
CUTS += [(4810, 4970)]


@pytest.fixture
def published(zoo_of):
    more = {
        "learning_rate": np.array([0.1, 0.2, 0.3]),
        "test_accuracy": np.array([0.5, 0.6, 0.7]),
        "initialisation": np.array(["he", "xavier", "normal"]),
    }
    return zoo_of(PUBLISHED, 3, shape=(1, 28, 28), **more)


def test_the_matrix_computes_what_the_networks_do(published, export):
    """A forward pass of plain torch over the published stretches, HWIO turned back."""
    weights_ND = np.load(export(published, "unterthiner") / "weights.npy")
    assert weights_ND.shape == (3, 4970) and weights_ND.dtype == np.float32
    inputs = torch.randn(4, 1, 28, 28)
    for row in range(3):
        parts = [torch.from_numpy(weights_ND[row, start:stop]) for start, stop in CUTS]
        hidden = inputs
        for layer, channels in enumerate((1, 16, 16)):
            kernel = parts[2 * layer + 1].reshape(3, 3, channels, 16).permute(3, 2, 0, 1)
            hidden = torch.conv2d(hidden, kernel, parts[2 * layer], stride=2).relu()
        found = hidden.mean((2, 3)) @ parts[7].reshape(16, 10) + parts[6]
        state = published.layout.unflatten(torch.from_numpy(published.read(np.array([row]))))
        with torch.no_grad():
            expected = run_networks(published.build_network(), state, inputs=inputs)[0]
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_tables_have_the_published_names(published, export):
    folder = export(published, "unterthiner", rows=(2, 0))
    with open(folder / "layout.csv") as file:
        layout = list(csv.DictReader(file))
    assert [(int(one["start_idx"]), int(one["end_idx"])) for one in layout] == CUTS
    assert [one["varname"] for one in layout][:3] == [
        "sequential/conv2d/bias:0",
        "sequential/conv2d/kernel:0",
        "sequential/conv2d_1/bias:0",
    ]
    assert ast.literal_eval(layout[3]["shape"]) == (3, 3, 16, 16)
    assert layout[-1]["varname"] == "sequential/dense/kernel:0"
    with gzip.open(folder / "metrics.csv.gz", "rt") as file:
        metrics = list(csv.DictReader(file))
    assert [float(one["test_accuracy"]) for one in metrics] == [0.7, 0.5]
    assert [one["config.w_init"] for one in metrics] == ["normal", "he"]
    assert metrics[0]["modeldir"] == "any/network-0000002" and metrics[0]["step"] == "1"
    assert metrics[0]["config.num_units"] == "16" and metrics[0]["config.num_layers"] == "3"


def test_equal_exports_are_equal_files(published, export):
    one, other = (export(published, "unterthiner", name) for name in ("one", "other"))
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_linear_layers_are_turned_too(zoo_of, export):
    zoo = zoo_of(MLPConfig((64, 5, 10)), count=2)
    weights_ND = np.load(export(zoo, "unterthiner") / "weights.npy")
    state = zoo.layout.unflatten(zoo.read())
    expected = [state["layers.0.bias"], state["layers.0.weight"].transpose(0, 2, 1)]
    expected += [state["layers.1.bias"], state["layers.1.weight"].transpose(0, 2, 1)]
    assert np.array_equal(weights_ND, np.concatenate([e.reshape(2, -1) for e in expected], 1))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (CNNConfig((4,), (1, 8, 8), norm="batch", head="average"), r"norms.0.weight is no kernel"),
        (CNNConfig((4,), (1, 8, 8)), r"linears.0.weight sees every pixel"),
        (CNNConfig((4,), (1, 8, 8), bias=False, head="average"), r"convs.0.weight is no kernel"),
    ],
)
def test_networks_that_have_no_place_in_it_are_refused(config, told, zoo_of, export, tmp_path):
    with pytest.raises(ConfigError, match=told):
        export(zoo_of(config, count=1), "unterthiner")
    assert not (tmp_path / "out").exists()
