"""Settings of generators that are fitted in a second."""

import pytest

from dwf.backbones.config import ResidualMLPConfig
from dwf.codecs.config import FlatConfig, PcaConfig
from dwf.densities.config import FlowConfig, GaussianConfig, SolverConfig
from dwf.generators.config import GeneratorConfig
from dwf.training.config import LoopConfig


@pytest.fixture
def flow_on_pca() -> GeneratorConfig:
    training = LoopConfig(steps=30, batch_size=4, ema=0.9, validate_every=10, device="cpu")
    backbone = ResidualMLPConfig(width=16, depth=1)
    solver = SolverConfig(method="midpoint", steps=4)
    flow = FlowConfig(backbone=backbone, training=training, solver=solver)
    return GeneratorConfig(zoo="small", codec=PcaConfig(components=5), density=flow)


@pytest.fixture
def gaussian_on_weights() -> GeneratorConfig:
    return GeneratorConfig(zoo="small", codec=FlatConfig(), density=GaussianConfig())
