"""Weights of a fitted predictor as the start of rows that train: fine-tuning."""

from pathlib import Path
from typing import TypeGuard

from dwf.errors import ConfigError
from dwf.predictors.config import PredictorConfig
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.predictors.learnt import LearntPredictor
from dwf.predictors.predictor import FILE, Predictor
from dwf.run_folder import sha256_of


def digest_of(config: ExperimentConfig) -> str | None:
    """Return the SHA-256 of the file that rows of an experiment begin from, if there is one.

    Raises:
        ConfigError: no such file, or no row begins from it.
        CorruptCheckpoint: it is damaged.
    """
    if config.resume_from is None:
        return None
    file = Path(config.resume_from)
    if file.name != FILE or not file.is_file():
        raise ConfigError(f"resume_from = {config.resume_from!r}: no such file, called {FILE}")
    found = Predictor.load(file.parent)
    if not any(_suits(found, settings) for settings in config.rows.values()):
        kind = found.config.kind
        told = ", ".join(f"{name} ({row.kind})" for name, row in config.rows.items())
        raise ConfigError(
            f"resume_from = {config.resume_from!r} is of the kind {kind}, and no row of that kind "
            f"trains: {told}"
        )
    return sha256_of(file)


def start_of(config: ExperimentConfig, settings: PredictorConfig) -> LearntPredictor | None:
    """Return the fitted predictor that a row begins from; None where it begins anew."""
    if config.resume_from is None or settings.training is None:
        return None
    found = Predictor.load(Path(config.resume_from).parent)
    return found if _suits(found, settings) else None


def _suits(found: Predictor, settings: PredictorConfig) -> TypeGuard[LearntPredictor]:
    """Whether a row can begin at a fitted predictor: it trains, and is of its kind."""
    is_same = isinstance(settings, type(found.config)) and isinstance(found, LearntPredictor)
    return is_same and settings.training is not None
