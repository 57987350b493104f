"""Plan of an experiment, in words: networks, properties, rows, and what those that train take."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from dwf.compute import Gpus
from dwf.errors import DwfError, TooLarge
from dwf.generators.plan import layout_of
from dwf.predictors.config import PREDICTORS, LearntPredictorSettings
from dwf.predictors.examples import Examples
from dwf.predictors.experiment import Experiment
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.predictors.learnt import LearntPredictor
from dwf.settings import find
from dwf.training.forecast import describe_training
from dwf.training.task import Share
from dwf.zoo.facts import FILE
from dwf.zoo.manifest import zoos_named

_FEW = 8
"""Networks of each zoo that a module's sizes are taken from."""


def describe(
    config: ExperimentConfig, root: Path, *, ranks: int, gpus: Gpus | None
) -> Iterator[str]:
    """Yield what rows learn from, and what those that train take; nothing is trained or written.

    Raises:
        ConfigError, TooFewNetworks, NotAZoo: of zoos that are there, see `Experiment.decide`.
    """
    names = zoos_named(root / "zoos", config.zoos)
    missing = [name for name in names if not (root / "zoos" / name / FILE).exists()]
    for name in missing:
        layout = layout_of(root / "zoos" / name)
        size = "" if layout is None else f" ({layout.size:,} weights, as configs/zoo says)"
        yield f"zoo {root / 'zoos' / name}: not there yet{size}"
    if missing:
        yield from (f"  {name}: {config.rows[name].kind}" for name in config.chosen)
        return
    experiment = Experiment.decide(config, root)
    counts, out = experiment.origin.counts, experiment.origin.left_out
    noun = "networks" if config.epochs == "last" else "rows of networks"
    yield (
        f"{counts['train']} {noun} for training, {counts['val']} for choices and "
        f"{counts['test']} for the test, split by {config.split.by}, epochs: {config.epochs}"
        + (f"; {out} without a value are left out" if out else "")
    )
    yield f"tells {', '.join(config.properties)}"
    few = _few(experiment.examples("train"))
    for name in config.chosen:
        settings = config.rows[name]
        yield f"  {name}: {settings.kind}, of {settings.access}"
        if isinstance(settings, LearntPredictorSettings):
            told = _describe_row(name, settings, few, ranks, gpus)
            yield from (f"    {line}" for line in told.splitlines())
        elif settings.training is not None:
            loop = settings.training
            yield f"    its head trains for {loop.steps} steps of {loop.batch_size} networks"


def _few(train: Examples) -> Examples:
    sources = [(zoo, rows[:_FEW]) for zoo, rows in train.sources]
    ends = np.cumsum([len(rows) for _, rows in train.sources])
    of_zoos = np.split(train.values_NP, ends[:-1])
    return Examples(sources, train.properties, np.concatenate([part[:_FEW] for part in of_zoos]))


def _describe_row(
    name: str,
    settings: LearntPredictorSettings,
    few: Examples,
    ranks: int,
    gpus: Gpus | None,
) -> str:
    training = settings.training
    predictor: LearntPredictor = find(PREDICTORS, settings.kind)(settings)
    try:
        with torch.device("meta"):  # shapes alone
            module = predictor.planned_module(few)
    except TooLarge:
        raise
    except DwfError as error:
        return f"WARNING: it cannot be built: {error}"
    return describe_training(
        module,
        training,
        share=Share.of_first(training, ranks),
        key=f"rows.{name}.training",
        gpus=gpus,
    )
