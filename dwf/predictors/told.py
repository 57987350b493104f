"""The held-out networks of an experiment, and what each row says of them.

Shape suffixes: N test networks, V validation networks, P properties, S draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dwf.plain import Json

LEAST = 3
"""Networks that a figure is of, at least."""


@dataclass(frozen=True)
class Truth:
    """The test networks of an experiment, in a fixed order, and values of those to choose by."""

    properties: tuple[str, ...]
    """Names of the properties, P of them."""
    values_NP: np.ndarray
    """Values, float64, finite."""
    val_values_VP: np.ndarray
    """Values of the validation networks, likewise."""
    network_N: np.ndarray
    """Number of each row's network: rows of one network (its epochs) share it."""
    zoo_N: np.ndarray
    """Label of each network's zoo, words."""
    architecture_N: np.ndarray
    """Architecture of each network, words."""
    images_P: tuple[int | None, ...]
    """Number of images behind each share, whose choice is its noise; None: no share of images."""
    luck: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Property -> luck_SN: by how much the shares change with other images, where that is known."""


@dataclass(frozen=True)
class Told:
    """Predictions of one row for the held-out networks, under one seed."""

    row: str
    """Name of the row."""
    seed: int
    """Seed that it was fitted under."""
    access: str
    """How much of a network it is shown: `columns`, `weights` or `networks`."""
    invariances: tuple[str, ...]
    """Symmetries that change no prediction of it, sorted."""
    values_NP: np.ndarray
    """Values of the chosen step, float64."""
    last_NP: np.ndarray | None
    """Values of the last step, where the step was chosen; None else."""
    val_VP: np.ndarray
    """Values for the validation networks, of the chosen step."""
    seconds: dict[str, float]
    """Seconds of `fit` and `predict`."""
    facts: dict[str, Json]
    """Choices and measurements of its fit, plain data."""
