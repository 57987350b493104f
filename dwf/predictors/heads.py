"""Heads: functions from features of networks to their properties, fitted once the features are.

A table of features is an array, or reads what it is asked for (`predictors.flat`), so that a head
need not hold networks x weights. Every head brings features to mean 0 and deviation 1 over the
training networks first; those that are constant there take no part, those that a network does not
have (NaN) are put at the mean.

Shape suffixes: N networks, B networks of a block, F features, W features of a window, P properties.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from dwf import preemption
from dwf.errors import ConfigError, ShapeMismatch, TooFewNetworks
from dwf.plain import Json, State
from dwf.predictors.head_config import HEADS, HeadConfig, HeadSettings
from dwf.predictors.targets import TARGETS, Targets
from dwf.run_folder import RunPart
from dwf.settings import find

BLOCK_BYTES = 32 * 2**20
_CONSTANT = 1e-9  # deviation over largest magnitude, below which a feature is rounding alone


class Table:
    """Features of networks; base of what reads them, and itself an array.

    Args:
        features_NF: one row for each network, NaN where it does not have a feature.
    """

    def __init__(self, features_NF: np.ndarray):
        self._features_NF = features_NF
        self.shape: tuple[int, int] = features_NF.shape
        """(N, F)."""

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, places_B: np.ndarray) -> np.ndarray:
        """Return features_BF of some networks."""
        return self._features_NF[places_B]

    def window(self, start: int, stop: int) -> np.ndarray:
        """Return features_NW: those from `start` to before `stop` of all networks."""
        return self._features_NF[:, start:stop]

    def blocks(self, max_bytes: int = BLOCK_BYTES) -> Iterator[np.ndarray]:
        """Yield places_B in order, of at most `max_bytes` of float64 features each."""
        step = max(1, max_bytes // (8 * max(self.shape[1], 1)))
        for start in range(0, len(self), step):
            stop_if_asked()
            yield np.arange(start, min(start + step, len(self)))

    def windows(self, max_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of windows, of at most `max_bytes` of float64 features each."""
        width = max(1, max_bytes // (8 * max(len(self), 1)))
        for start in range(0, self.shape[1], width):
            stop_if_asked()
            yield start, min(start + width, self.shape[1])


@dataclass(frozen=True)
class Labelled:
    """Features of networks with values of their properties."""

    features: Table
    """N networks of F features."""
    values_NP: np.ndarray
    """Values, float64, finite."""

    def __len__(self) -> int:
        return len(self.features)


class Scaling:
    """Shift and scale of features, as the training networks have them.

    Args:
        shift_F: their means.
        factor_F: one over their deviations; 0 of those that take no part.
    """

    def __init__(self, shift_F: np.ndarray, factor_F: np.ndarray):
        self.shift_F, self.factor_F = shift_F, factor_F

    @classmethod
    def of(cls, features: Table) -> "Scaling":
        """Return that of training networks.

        Raises:
            ConfigError: a feature is infinite.
        """
        shift_F, factor_F = np.zeros(features.shape[1]), np.zeros(features.shape[1])
        for start, stop in features.windows():
            block_NW = features.window(start, stop).astype(np.float64)
            if np.isinf(block_NW).any():
                raise ConfigError(
                    f"feature {start + int(np.isinf(block_NW).any(0).argmax())} of "
                    f"{int(np.isinf(block_NW).any(1).sum())} of {len(features)} networks is "
                    "infinite: their training diverged; leave these networks out"
                )
            shift_F[start:stop], factor_F[start:stop] = _moments(block_NW)
        return cls(shift_F, factor_F)

    def apply(self, features: np.ndarray, start: int = 0, *, stop: int | None = None) -> np.ndarray:
        """Return features of any networks in these units, float64; NaN becomes 0.

        Args:
            features: shape [B, F], or [B, W] of a window.
            start: the window's first feature.
            stop: the one behind its last; default: all.
        """
        part = slice(start, stop)
        scaled = (features.astype(np.float64) - self.shift_F[part]) * self.factor_F[part]
        return np.nan_to_num(scaled, copy=False, nan=0.0)

    def state(self) -> State:
        """Return it as tensors; `restore` is the inverse."""
        return {name: torch.from_numpy(each) for name, each in vars(self).items()}

    @classmethod
    def restore(cls, state: State) -> "Scaling":
        """Return what `state` told."""
        return cls(**{name: each.numpy() for name, each in state.items()})


def _moments(block_NW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and factors of features; NaN takes no part, nor does a constant."""
    has_NW = ~np.isnan(block_NW)
    count_W = np.maximum(has_NW.sum(0), 1)
    shift_W = np.where(has_NW, block_NW, 0.0).sum(0) / count_W
    centred_NW = np.where(has_NW, block_NW - shift_W, 0.0)
    std_W = np.sqrt(np.square(centred_NW).sum(0) / count_W)
    largest_W = np.where(has_NW, np.abs(block_NW), 0.0).max(0, initial=0.0)
    varies_W = std_W > _CONSTANT * largest_W
    return shift_W, np.where(varies_W, 1 / np.where(varies_W, std_W, 1.0), 0.0)


class Head:
    """Base of the heads.

    Args:
        config: its settings.
    """

    settings: ClassVar[type[HeadSettings]]
    """Class of its settings."""
    num_features: int
    """F; known once it is fitted."""
    targets: Targets
    """Map from values to what it learns; known once it is fitted."""

    def __init__(self, config: HeadSettings):
        self.config = config

    def fit(self, train: Labelled, val: Labelled, *, run: RunPart, seed: int) -> dict[str, Json]:
        """Learn from training networks; choose by validation networks.

        Args:
            train: networks to learn from.
            val: networks held out for choices.
            run: takes checkpoints and metrics of a head that trains; of this fit alone.
            seed: of every draw.

        Returns:
            What was chosen and measured, plain data.

        Raises:
            TooFewNetworks: no networks to learn from, or none to choose by.
            ConfigError: a feature is infinite.
            TrainingDiverged, Preempted: see `training.loop.train`.
        """
        if not len(train):
            raise TooFewNetworks(f"{self.config.kind}: there are no networks to learn from")
        self.num_features = train.features.shape[1]
        self.targets = TARGETS[self.config.targets].of(train.values_NP)
        return self._fit(train, val, run=run, seed=seed)

    def _fit(self, train: Labelled, val: Labelled, *, run: RunPart, seed: int) -> dict[str, Json]:
        raise NotImplementedError

    def predict(self, features: Table) -> np.ndarray:
        """Return values_NP, float64.

        Raises:
            ShapeMismatch: another number of features than it learnt from.
        """
        return self._in_blocks(features, last=False)

    def predict_last(self, features: Table) -> np.ndarray:
        """Return values_NP as of the last step, where one was chosen among several."""
        return self._in_blocks(features, last=True)

    def _in_blocks(self, features: Table, last: bool) -> np.ndarray:
        if features.shape[1] != self.num_features:
            raise ShapeMismatch(
                f"{features.shape[1]} features of each network, and {self.config.kind} learnt from "
                f"{self.num_features}: give it networks of the kind that it learnt from"
            )
        parts = [self._tell(features.rows(places_B), last) for places_B in features.blocks()]
        return self.targets.undo(
            np.concatenate([np.zeros((0, self.targets.num_properties)), *parts])
        )

    def _tell(self, features_BF: np.ndarray, last: bool) -> np.ndarray:
        """Return targets_BP: what it says of the targets, float64."""
        raise NotImplementedError

    def state(self) -> State:
        """Return what it learnt: tensors, numbers, words, and lists and dicts of them."""
        return {
            "num_features": self.num_features,
            "targets": self.targets.state(),
            "own": self._own(),
        }

    def restore(self, state: State) -> None:
        """Take what `state` returned."""
        self.num_features = state["num_features"]
        self.targets = TARGETS[self.config.targets].restore(state["targets"])
        self._take_own(state["own"])

    def _own(self) -> State:
        raise NotImplementedError

    def _take_own(self, own: State) -> None:
        raise NotImplementedError


def make_head(config: HeadConfig) -> Head:
    """Return the head of some settings, not fitted yet."""
    return find(HEADS, config.kind)(config)


def refuse_no_choice(kind: str, val: Labelled) -> None:
    """Refuse to choose without validation networks; raises `TooFewNetworks`."""
    if not len(val):
        raise TooFewNetworks(
            f"{kind} chooses by validation networks, and there are none: hold some out "
            "(split.val of the zoo)"
        )


def stop_if_asked() -> None:
    """Leave if a signal asks for it; raises `Preempted`. Nothing is kept: a fit begins anew."""
    if preemption.is_asked():
        preemption.stop()
