"""Settings of generators that are fitted in a second."""

import numpy as np
import pytest

from dwf.backbones.config import ResidualMLPConfig
from dwf.codecs.config import FlatConfig, NeuronsConfig, PcaConfig
from dwf.densities.config import FlowConfig, GaussianConfig, KdeConfig, SolverConfig
from dwf.generators.config import GeneratorConfig
from dwf.networks.config import CNNConfig
from dwf.networks.functional import build_network
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, split_networks, write_zoo
from tests.zoos import facts_of


@pytest.fixture
def flow_on_pca() -> GeneratorConfig:
    training = LoopConfig(
        steps=30, batch_size=4, ema=0.9, validate_every=10, compute=LoopComputeConfig(device="cpu")
    )
    backbone = ResidualMLPConfig(width=16, depth=1)
    solver = SolverConfig(method="midpoint", steps=4)
    flow = FlowConfig(backbone=backbone, training=training, solver=solver)
    return GeneratorConfig(zoo="small", codec=PcaConfig(components=5), density=flow)


@pytest.fixture
def gaussian_on_weights() -> GeneratorConfig:
    return GeneratorConfig(zoo="small", codec=FlatConfig(), density=GaussianConfig())


@pytest.fixture
def kde_on_neurons() -> GeneratorConfig:
    """Tokens of hidden units, which a KDE combines."""
    return GeneratorConfig(zoo="small", codec=NeuronsConfig(), density=KdeConfig())


CONVOLUTIONAL = CNNConfig(channels=(3, 4), input=(1, 8, 8), norm="batch", head="average")


@pytest.fixture
def convolutional(tmp_path, request) -> Zoo:
    """Twelve networks with BatchNorm, of random weights and statistics.

    The logarithms of the variances vary by 0.1, or by the fixture's parameter.
    """
    variation = getattr(request, "param", 0.1)
    layout, num = Layout.of(build_network(CONVOLUTIONAL)), 12
    weights_ND = np.random.default_rng(0).standard_normal((num, layout.size)).astype(np.float32)
    for entry in layout.entries:
        if entry.name.endswith("running_var"):
            part = slice(entry.offset, entry.stop)
            weights_ND[:, part] = np.exp(variation * weights_ND[:, part])
    columns = {
        "network": np.arange(num),
        "epoch": np.ones(num, np.int32),
        "split": split_networks(num, 0.2, test=0.2, seed=0),
        "batchnorm": np.full(num, "trained"),
    }
    facts = facts_of(layout, CONVOLUTIONAL)
    return write_zoo(
        tmp_path / "zoos" / "small", facts, num_rows=num, blocks=[(columns, weights_ND)]
    )
