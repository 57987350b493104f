"""The zoos that are large for their networks have the sizes that their headers promise."""

from pathlib import Path

import numpy as np
import pytest

from dwf.datasets.cache import is_cached
from dwf.datasets.load import load_dataset
from dwf.networks.functional import build_network
from dwf.settings import parse
from dwf.zoo.config import ZooConfig
from dwf.zoo.layout import Layout
from dwf.zoo.misfit import refuse_misfit
from dwf.zoo.store import split_networks

CONFIGS = Path(__file__).parents[2] / "configs" / "zoo"
NETWORKS = {
    "digits_4096": (4_096, 256),
    "digits_16384": (16_384, 256),
    "digits_two_layers": (16_384, 256),
    "iris_mlp_large": (4_096, 256),
    "cnn_digits": (4_096, 256),
    "mnist14_mlp": (16_384, 256),
    "mnist_mlp_large": (16_384, 256),
    "fashion_mnist_mlp_large": (16_384, 256),
    "mnist14_mlp_cluster": (100_000, 512),
    "mnist_mlp_100k": (100_000, 512),
    "fashion_mnist_mlp_100k": (100_000, 512),
}
"""Training networks, and those held out for choices and as many for reports."""
WEIGHTS = {"digits_two_layers": 1_482, "digits": 1_210, "iris": 131, "cnn": 1_258, "mnist14": 3_322}


def read(name: str) -> ZooConfig:
    return parse(ZooConfig, str(CONFIGS / f"{name}.yaml"), argv=[]).config


@pytest.mark.parametrize("name", NETWORKS)
def test_a_large_zoo_has_the_networks_of_its_header(name):
    config, (train, held_out) = read(name), NETWORKS[name]
    splits = split_networks(
        config.count, config.split.val, test=config.split.test, seed=config.seed
    )
    counts = dict(zip(*np.unique(splits, return_counts=True), strict=True))
    assert counts == {"train": train, "val": held_out, "test": held_out}
    assert f"{config.count:,}" in (CONFIGS / f"{name}.yaml").read_text()
    size = Layout.of(build_network(config.network)).size
    assert size == WEIGHTS.get(name, WEIGHTS.get(name.split("_")[0], 26_506))
    assert config.cohort is None or config.shard_size % config.cohort == 0


@pytest.mark.parametrize("name", ["digits_4096", "iris_mlp_large", "cnn_digits"])
def test_networks_fit_their_data(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path))
    refuse_misfit(read(name))


def test_widths_fit_resized_images():
    config = read("mnist14_mlp")
    if not is_cached("mnist"):
        pytest.skip("MNIST is not on this machine")
    assert load_dataset(config.data).shape == (1, 14, 14)
    refuse_misfit(config)


TINY = {"dense": "", "sparse": "sparse_", "regularised": "regularised_"}


@pytest.mark.parametrize("kind", TINY)
def test_vae_diffusions_zoos_are_full_and_narrow(kind):
    """Parameters by hand: of the published network, and of half its filters at 16 x 16."""
    full, narrow = (read(f"tiny_cnn_{size}{TINY[kind]}cifar10") for size in ("", "narrow_"))
    sizes = [Layout.of(build_network(config.network)).size for config in (full, narrow)]
    by_hand = [
        (27 * a + a) + (9 * a * b + b) + (b * side**2 * h + h) + (h * 10 + 10)
        for a, b, side, h in ((16, 32, 8, 100), (8, 16, 4, 32))
    ]
    assert sizes == by_hand == [210_998, 9_946]
    for config in (full, narrow):
        recipe = config.recipe
        assert config.keep.kind == "above" and config.count in (40, 16)
        assert recipe.weight_decay == (1e-3 if kind == "regularised" else 1e-4)
        assert recipe.dropout == (0.3 if kind == "regularised" else 0.0)
        assert (recipe.prune is not None) == (kind == "sparse")
        assert (config.vary.prune_share is not None) == (kind == "sparse")
