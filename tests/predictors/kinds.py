"""A predictor of the tests' own that trains, and experiments on zoos written without training."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.predictors import predictor
from dwf.predictors.config import PREDICTORS, LearntPredictorSettings, PredictorConfig
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.predictors.learnt import LearntPredictor
from dwf.predictors.row import do_row
from dwf.settings import build
from dwf.training.config import LoopConfig
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, write_zoo
from tests.zoos import facts_of


@dataclass(frozen=True)
class LineConfig(LearntPredictorSettings):
    """A linear function of the weights."""

    training: LoopConfig = field(default_factory=LoopConfig)
    loss: Literal["mse", "mae", "huber", "bce"] = "mse"
    targets: Literal["deviations", "ranks"] = "deviations"
    kind: Literal["line"] = "line"


class Line(LearntPredictor[torch.Tensor]):
    settings = LineConfig

    def _prepare(self, train):
        self.size = train.sources[0][0].layout.size

    def _new_module(self):
        return nn.Linear(self.size, len(self.properties))

    def inputs(self, sources):
        return torch.cat([torch.from_numpy(zoo.read(rows)) for zoo, rows in sources])

    def _own(self):
        return {"size": self.size}

    def _take_own(self, own):
        self.size = own["size"]


def register() -> None:
    """Let rows be lines."""
    PREDICTORS["line"] = f"{__name__}:Line"
    every = PredictorConfig | LineConfig
    predictor.PredictorConfig = every
    rows = dict[str, every]
    ExperimentConfig.__annotations__["rows"] = rows


def forget() -> None:
    """Let rows be as dwf has them."""
    PREDICTORS.pop("line", None)
    predictor.PredictorConfig = PredictorConfig
    rows = dict[str, PredictorConfig]
    ExperimentConfig.__annotations__["rows"] = rows


def do_any_row(folder: Path, index: int) -> None:
    """Do a row in a worker process, which has not registered lines."""
    register()
    do_row(folder, index)


def line(**training) -> dict:
    """Settings of a row."""
    loop = {"steps": 30, "batch_size": 8, "validate_every": 10, "learning_rate": 0.05}
    loop |= {"keep": "best", "compute": {"threads": 1, "device": "cpu"}}
    return {"kind": "line", "training": loop | training}


def experiment(**settings) -> ExperimentConfig:
    """Build an experiment's settings; zoos and rows have defaults."""
    usual = {"zoos": ["a"], "rows": {"constant": {"kind": "constant"}}, "properties": ["sum"]}
    return build(ExperimentConfig, usual | settings, source="test.yaml")


def write_made_zoo(root: Path, name: str = "a", count: int = 60, width: int = 10, **told) -> Zoo:
    """Write `count` linear networks 64-`width` of two epochs each, 20 % for each held-out part.

    Its columns: `sum` of the first 64 weights; accuracies; a learning rate of ten values.
    """
    seed, columns = told.pop("seed", 0), told.pop("columns", {})
    generator = np.random.default_rng(seed)
    network_config = MLPConfig((64, width))
    layout = Layout.of(build_network(network_config))
    weights = generator.normal(size=(2 * count, layout.size)).astype(np.float32)
    network = np.repeat(np.arange(count), 2)
    split = np.array(["train", "train", "train", "val", "test"])[network % 5]
    table = {
        "network": network,
        "epoch": np.tile([1, 2], count),
        "split": split,
        "sum": weights[:, :64].sum(1, dtype=np.float64),
        "train_accuracy": generator.uniform(0.8, 0.9, 2 * count).astype(np.float32),
        "test_accuracy": generator.uniform(0.6, 0.7, 2 * count).astype(np.float32),
        "learning_rate": np.repeat(np.arange(count) % 10 / 100, 2),
        "optimizer": np.full(2 * count, "adam"),
    } | columns
    table = {name: values for name, values in table.items() if values is not None}
    facts = replace(facts_of(layout, network_config), **told)
    return write_zoo(root / "zoos" / name, facts, num_rows=2 * count, blocks=[(table, weights)])
