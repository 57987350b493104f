"""Targets made of properties: deviations from their means, ranks, or shares as they are.

A predictor learns targets; what it tells of them becomes values by the inverse map.

Shape suffixes: N networks, P properties, K distinct values of a property.
"""

import numpy as np
import torch
from scipy.special import expit, ndtri

from dwf.errors import ConfigError
from dwf.plain import State
from dwf.predictors.head_config import TargetKind

_FAR = 10.0  # deviations beyond the least and the largest rank, over which the map goes on straight


class Targets:
    """Base of the maps from values to targets, set by the training networks, and their inverses."""

    num_properties: int
    """P."""

    @classmethod
    def of(cls, values_NP: np.ndarray) -> "Targets":
        """Return the map that training networks set.

        Args:
            values_NP: their values, finite.

        Raises:
            ConfigError: the values have no such targets.
        """
        raise NotImplementedError

    def apply(self, values_NP: np.ndarray) -> np.ndarray:
        """Return targets_NP of any networks' values, float64."""
        raise NotImplementedError

    def undo(self, told_NP: np.ndarray) -> np.ndarray:
        """Return values_NP from what is told of targets, float64; the inverse of `apply`."""
        raise NotImplementedError

    def state(self) -> State:
        """Return it as tensors and lists of them; `restore` takes it."""
        raise NotImplementedError

    @classmethod
    def restore(cls, state: State) -> "Targets":
        """Return what `state` told."""
        raise NotImplementedError


class Deviations(Targets):
    """Standard deviations from the mean of the training networks.

    Args:
        mean_P: their means.
        std_P: their standard deviations; 1 of a constant, which is told by its mean.
    """

    def __init__(self, mean_P: np.ndarray, std_P: np.ndarray):
        self.mean_P, self.std_P = mean_P, std_P
        self.num_properties = len(mean_P)

    @classmethod
    def of(cls, values_NP: np.ndarray) -> "Deviations":
        """Return the map that training networks set; see the base."""
        return cls(values_NP.mean(0), _spread(values_NP))

    def apply(self, values_NP: np.ndarray) -> np.ndarray:
        """Return how many deviations values are above the mean."""
        return (values_NP - self.mean_P) / self.std_P

    def undo(self, told_NP: np.ndarray) -> np.ndarray:
        """Return values from deviations."""
        return told_NP * self.std_P + self.mean_P

    def state(self) -> State:
        """Return means and deviations; see the base."""
        return {"mean_P": torch.from_numpy(self.mean_P), "std_P": torch.from_numpy(self.std_P)}

    @classmethod
    def restore(cls, state: State) -> "Deviations":
        """Return what `state` told."""
        return cls(state["mean_P"].numpy(), state["std_P"].numpy())


class Ranks(Targets):
    """Normal scores of ranks among the training networks (van der Waerden, 1952).

    A value's score is the normal quantile of the share of training networks below it, equal ones
    counted half. Between distinct values the map is a straight line, and beyond the ends it goes on
    with one score for each deviation, so no two different answers become equal.

    Args:
        values: by property the distinct values [K], ascending, with the ends of the straight lines.
        scores: their scores [K].
    """

    def __init__(self, values: list[np.ndarray], scores: list[np.ndarray]):
        self.values, self.scores = values, scores
        self.num_properties = len(values)

    @classmethod
    def of(cls, values_NP: np.ndarray) -> "Ranks":
        """Return the map that training networks set; see the base."""
        values, scores = [], []
        for values_N, std in zip(values_NP.T, _spread(values_NP), strict=True):
            value_K, count_K = np.unique(values_N, return_counts=True)
            score_K = ndtri((count_K.cumsum() - count_K / 2) / len(values_N))
            values.append(_with_ends(value_K, _FAR * std))
            scores.append(_with_ends(score_K, _FAR))
        return cls(values, scores)

    def apply(self, values_NP: np.ndarray) -> np.ndarray:
        """Return scores of values."""
        return _along(values_NP, self.values, self.scores)

    def undo(self, told_NP: np.ndarray) -> np.ndarray:
        """Return values from scores."""
        return _along(told_NP, self.scores, self.values)

    def state(self) -> State:
        """Return values and scores; see the base."""
        return {
            "values": [torch.from_numpy(each) for each in self.values],
            "scores": [torch.from_numpy(each) for each in self.scores],
        }

    @classmethod
    def restore(cls, state: State) -> "Ranks":
        """Return what `state` told."""
        return cls(*([each.numpy() for each in state[name]] for name in ("values", "scores")))


class Shares(Targets):
    """Shares as they are; what is told of them are logits.

    Args:
        num_properties: P.
    """

    def __init__(self, num_properties: int):
        self.num_properties = num_properties

    @classmethod
    def of(cls, values_NP: np.ndarray) -> "Shares":
        """Return the map that training networks set; see the base."""
        if values_NP.min() < 0 or values_NP.max() > 1:
            raise ConfigError(
                "loss = 'bce' is for values from 0 to 1, and those of the properties reach from "
                f"{values_NP.min():.3g} to {values_NP.max():.3g}: set mse"
            )
        return cls(values_NP.shape[1])

    def apply(self, values_NP: np.ndarray) -> np.ndarray:
        """Return the values."""
        return values_NP

    def undo(self, told_NP: np.ndarray) -> np.ndarray:
        """Return shares from logits."""
        return expit(told_NP)

    def state(self) -> State:
        """Return how many properties there are; see the base."""
        return {"num_properties": self.num_properties}

    @classmethod
    def restore(cls, state: State) -> "Shares":
        """Return what `state` told."""
        return cls(state["num_properties"])


TARGETS: dict[TargetKind, type[Targets]] = {"deviations": Deviations, "ranks": Ranks}
"""Maps by their names in settings."""


def _spread(values_NP: np.ndarray) -> np.ndarray:
    std_P = values_NP.std(0)
    return np.where(std_P > 0, std_P, 1.0)


def _with_ends(knots_K: np.ndarray, far: float) -> np.ndarray:
    return np.concatenate([knots_K[:1] - far, knots_K, knots_K[-1:] + far])


def _along(given_NP: np.ndarray, from_: list[np.ndarray], to: list[np.ndarray]) -> np.ndarray:
    """Return each column of `given_NP` along the lines between its knots."""
    columns = [
        np.interp(given_N, *knots) for given_N, *knots in zip(given_NP.T, from_, to, strict=True)
    ]
    return np.stack(columns, 1)
