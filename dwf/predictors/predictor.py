"""The base of every predictor: fitted to networks with known properties, it tells those of others.

    predictor.pt    settings, properties and what was learnt, one file; nothing in it is executed

Shape suffixes: N networks, P properties.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np

from dwf.errors import ConfigError
from dwf.plain import Json, State
from dwf.predictors.config import PREDICTORS, PredictorConfig, PredictorSettings
from dwf.predictors.examples import Examples
from dwf.run_folder import RunPart, load_state, save_state
from dwf.settings import build, find, to_dict
from dwf.zoo.moments import Sources

FILE = "predictor.pt"


class Predictor:
    """Base of the predictors.

    Args:
        config: its settings, which say what it can do.
    """

    settings: ClassVar[type[PredictorSettings]]
    """Class of its settings."""
    properties: tuple[str, ...] = ()
    """Names of what it tells; known once it is fitted."""

    def __init__(self, config: PredictorSettings):
        self.config = config

    def fit(self, train: Examples, val: Examples, *, run: RunPart, seed: int) -> dict[str, Json]:
        """Learn from training networks; choose by validation networks.

        Args:
            train: networks to learn from.
            val: networks held out for choices: of a penalty, a step, a depth.
            run: takes checkpoints and metrics; of this predictor and seed alone.
            seed: of initialisation, batches, dropout and trees.

        Returns:
            What was chosen and measured, plain data.

        Raises:
            TooFewNetworks: fewer than the method needs.
            ConfigError: the networks are not for this predictor.
            TrainingDiverged, Preempted: see `training.loop.train`.
        """
        raise NotImplementedError

    def start_from(self, fitted: "Predictor") -> None:
        """Begin the next `fit` at what one of the same kind has learnt.

        Raises:
            ConfigError: it does not train, so there is nothing to begin at.
        """
        raise ConfigError(f"{self.config.kind} does not train: it begins at no other's weights")

    def predict(self, sources: Sources) -> np.ndarray:
        """Return values_NP, float64, of networks in order.

        Raises:
            ShapeMismatch: networks of a layout that it does not know.
        """
        raise NotImplementedError

    def predict_last(self, sources: Sources) -> np.ndarray:
        """Return what it told at its last step, where it was chosen among several: values_NP."""
        return self.predict(sources)

    def _own(self) -> State:
        """Return what a kind learnt: tensors, numbers, words, and lists and dicts of them."""
        raise NotImplementedError

    def _take_own(self, own: State) -> None:
        """Take what `_own` returned."""
        raise NotImplementedError

    def _state(self) -> State:
        """Return all that was learnt; `_restore` takes it."""
        return {"own": self._own()}

    def _restore(self, state: State) -> None:
        self._take_own(state["own"])

    def save(self, folder: Path) -> None:
        """Write it as one whole file."""
        head = {"config": to_dict(self.config), "properties": list(self.properties)}
        save_state(Path(folder) / FILE, {**head, "state": self._state()})

    @staticmethod
    def load(folder: Path) -> "Predictor":
        """Read what `save` wrote.

        Raises:
            CorruptCheckpoint: the file is damaged.
        """
        path = Path(folder) / FILE
        saved = load_state(path)
        config = build(PredictorConfig, saved["config"], source=str(path))
        predictor = find(PREDICTORS, config.kind)(config)
        predictor.properties = tuple(saved["properties"])
        predictor._restore(saved["state"])
        predictor._open(Path(folder))
        return predictor

    def _open(self, folder: Path) -> None:
        """Open what a kind keeps beside the file."""

    def _refuse_empty(self, train: Examples) -> None:
        if not len(train):
            raise ConfigError(f"{self.config.kind}: there are no networks to learn from")
