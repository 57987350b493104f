"""Conditions of a density: what it is told of each network, and by which samples are asked for.

A condition is a number (an accuracy, an epoch), a category (an initialisation, a dataset), or a set
of classes. The network that learns is told a number in standardised units; of a category the share
of each one that was learnt, which is 1 of one of them, or a mixture; of a set the share of each
class. NaN stands for none.

Shape suffixes: N networks, C conditions, P numbers of all conditions, K of one.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from dwf.densities.asked import Choice, Spread, Turns
from dwf.errors import ConfigError
from dwf.plain import Json

CLASSES = "classes"
"""Name of the condition that is a set of classes, its labels joined by `+`."""
Told = Mapping[str, np.ndarray]
"""Condition -> of each network its number, NaN for none, or its word, empty for none."""
# A person reads a range with six digits, and a zoo may hold its accuracies as float32.
_ROUNDING = 5e-6
_MOST_CATEGORIES = 256
_MOST_LISTED = 16


@dataclass(frozen=True)
class Condition(ABC):
    """Base of what a density knows of one condition."""

    kind: ClassVar[str]
    name: str
    """Name of it, for a person: a column of the zoo, or a fact of it."""

    @property
    @abstractmethod
    def size(self) -> int:
        """K: how many numbers stand for it."""

    @property
    @abstractmethod
    def known(self) -> str:
        """Words on what may be asked for."""

    @property
    @abstractmethod
    def typical(self) -> str:
        """Words that ask for what training networks have."""

    @abstractmethod
    def encode(self, values_N: np.ndarray) -> torch.Tensor:
        """Return values as the network is told them, float32_NK; NaN where there is none."""

    @abstractmethod
    def understand(self, words: str) -> Choice:
        """Return the values that words ask for.

        Raises:
            ConfigError: nothing of the kind was learnt.
        """


@dataclass(frozen=True)
class Number(Condition):
    """Shift, scale and range of the training networks' numbers."""

    kind: ClassVar[str] = "number"
    size: ClassVar[int] = 1
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def fit(cls, name: str, values_N: np.ndarray) -> "Number":
        """Return that of training networks; numbers that are not finite stand for none."""
        values_N = torch.as_tensor(values_N).double()
        known_N = values_N[values_N.isfinite()]
        low, high = _refuse_few(name, known_N.tolist())
        deviation = known_N.std(correction=0).item()
        return cls(name, known_N.mean().item(), deviation=deviation, low=low, high=high)

    @property
    def known(self) -> str:
        """Words on its range."""
        return f"{self.name} in [{self.low:.6g}, {self.high:.6g}]"

    @property
    def typical(self) -> str:
        """Words that ask for the mean."""
        return repr(self.mean)

    def encode(self, values_N: np.ndarray) -> torch.Tensor:
        """Return numbers in standardised units."""
        values_N = torch.as_tensor(values_N).double()
        values_N = torch.where(values_N.isfinite(), values_N, math.nan)
        return ((values_N - self.mean) / self.deviation).float().unsqueeze(1)

    def understand(self, words: str) -> Choice:
        """Return `0.96`, or a spread as `0.9..0.96`."""
        try:
            ends = [float(each) for each in words.split("..")]
        except ValueError:
            ends = []
        if len(ends) not in (1, 2):
            raise ConfigError(
                f"condition {self.name} = {words!r}: expected a number, or two with .. between "
                f"them to spread samples over, of {self.known}"
            )
        for value in ends:
            self._refuse_outside(value)
        return Turns((ends[0],)) if len(ends) == 1 else Spread(*ends)

    def _refuse_outside(self, value: float) -> None:
        slack = _ROUNDING * max(abs(self.low), abs(self.high))
        if not self.low - slack <= value <= self.high + slack:
            raise ConfigError(
                f"condition = {value:g}: the {self.name} of the networks learnt from lies in "
                f"[{self.low:.6g}, {self.high:.6g}], and outside it nothing was learnt: choose a "
                "condition within"
            )


@dataclass(frozen=True)
class Category(Condition):
    """The categories of the training networks, in order of their names."""

    kind: ClassVar[str] = "category"
    categories: tuple[str, ...]

    @classmethod
    def fit(cls, name: str, words_N: np.ndarray) -> "Category":
        """Return that of training networks; an empty word stands for none."""
        found = sorted({str(word) for word in np.unique(words_N)} - {""})
        _refuse_few(name, found)
        if len(found) > _MOST_CATEGORIES:
            raise ConfigError(
                f"density.condition = {name!r}: the training networks have {len(found):,} of them, "
                f"more than {_MOST_CATEGORIES}, so that each says little: choose another "
                "column, or learn from fewer networks"
            )
        return cls(name, tuple(found))

    @property
    def size(self) -> int:
        """How many categories there are."""
        return len(self.categories)

    @property
    def known(self) -> str:
        """Words that list them, the first of many."""
        listed = ", ".join(self.categories[:_MOST_LISTED])
        more = len(self.categories) - _MOST_LISTED
        return f"{self.name} one of {listed}" + (f" and {more} more" if more > 0 else "")

    @property
    def typical(self) -> str:
        """Words that ask for all in turn."""
        return "each"

    def encode(self, values_N: np.ndarray) -> torch.Tensor:
        """Return the share of each category; words of none that was learnt stand for none."""
        rows = {word: self._shares(word) for word in map(str, np.unique(values_N))}
        found = [rows[str(word)] for word in values_N]
        return torch.from_numpy(np.array(found).reshape(-1, self.size)).float()

    def understand(self, words: str) -> Choice:
        """Return `he`; a mixture as `he:0.5,xavier:0.5`; or, of `each`, all in turn."""
        if words == "each":
            return Turns(self.categories)
        for category, _ in self._mixture(words):
            if np.isnan(self._pure(category)).any():
                raise ConfigError(
                    f"condition {self.name} = {words!r}: no network learnt from has {category!r}: "
                    f"ask for {self.known}, for several as {self.categories[0]}:0.5,"
                    f"{self.categories[1]}:0.5, or for each"
                )
        return Turns((words,))

    def _shares(self, words: str) -> np.ndarray:
        if not words:
            return np.full(self.size, math.nan)
        parts = [share * self._pure(category) for category, share in self._mixture(words)]
        return np.sum(parts, axis=0)

    def _mixture(self, words: str) -> list[tuple[str, float]]:
        """Return (category, share) of each that words name; a name may hold what marks shares."""
        if words in self.categories:
            return [(words, 1.0)]
        try:
            return mixture(words)
        except ValueError:
            raise ConfigError(
                f"condition {self.name} = {words!r}: expected shares that sum to 1, as "
                f"{self.categories[0]}:0.5,{self.categories[1]}:0.5"
            ) from None

    def _pure(self, category: str) -> np.ndarray:
        """Return the share of each where it is one of them alone; NaN where it is none."""
        if category not in self.categories:
            return np.full(self.size, math.nan)
        return np.eye(self.size)[self.categories.index(category)]


@dataclass(frozen=True)
class ClassSet(Category):
    """The sets of classes of the training networks; each class is 1 in the sets that have it."""

    kind: ClassVar[str] = "classes"

    @property
    def labels(self) -> tuple[str, ...]:
        """Every class of any set."""
        return tuple(sorted({label for each in self.categories for label in each.split("+")}))

    @property
    def size(self) -> int:
        """How many classes there are."""
        return len(self.labels)

    @property
    def known(self) -> str:
        """Words that list the classes."""
        return f"{self.name} of {', '.join(self.labels)}, joined by +"

    def _pure(self, category: str) -> np.ndarray:
        labels, mine = self.labels, category.split("+")
        if not set(mine) <= set(labels):
            return np.full(self.size, math.nan)
        return np.array([float(label in mine) for label in labels])


_KINDS = {kind.kind: kind for kind in (Number, Category, ClassSet)}


@dataclass(frozen=True)
class Conditions:
    """All conditions of a density, in the order of its settings."""

    each: tuple[Condition, ...]

    @classmethod
    def fit(cls, names: tuple[str, ...], told: Told | None) -> "Conditions":
        """Return those of training networks.

        Raises:
            ConfigError: no network has one, or all have the same.
        """
        return cls(tuple(_fitted(name, (told or {}).get(name)) for name in names))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of each condition."""
        return tuple(one.size for one in self.each)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(one.name for one in self.each)

    @property
    def known(self) -> str:
        """Words on what may be asked for."""
        return "; ".join(one.known for one in self.each)

    @property
    def typical(self) -> tuple[str, ...]:
        """Words that ask for what training networks have."""
        return tuple(f"{one.name}={one.typical}" for one in self.each)

    def encode(self, told: Told | None, count: int) -> torch.Tensor:
        """Return what networks have as the network that learns is told it, float32_NP.

        Args:
            told: condition -> values_N; one that is missing stands for none.
            count: N.
        """
        parts = [
            one.encode(told[one.name])
            if told and one.name in told
            else torch.full((count, one.size), math.nan)
            for one in self.each
        ]
        return torch.cat(parts, dim=1)

    def to_json(self) -> list[dict[str, Json]]:
        """Return plain data; `from_json` is the inverse."""
        return [{"kind": one.kind} | vars(one) for one in self.each]

    @classmethod
    def from_json(cls, told: list[dict[str, Json]]) -> "Conditions":
        """Return what `to_json` told."""
        return cls(
            tuple(
                _KINDS[one["kind"]](**{name: v for name, v in one.items() if name != "kind"})
                for one in told
            )
        )


def _fitted(name: str, values_N: np.ndarray | None) -> Condition:
    values_N = np.zeros(0) if values_N is None else np.asarray(values_N)
    if name == CLASSES:
        return ClassSet.fit(name, values_N)
    return (Category if are_words(values_N) else Number).fit(name, values_N)


def are_words(values_N: np.ndarray) -> bool:
    """Whether a condition's values are words: of a category, not numbers."""
    return values_N.dtype.kind in "US"


def _refuse_few(name: str, values: list) -> tuple:
    """Return the least and the greatest of numbers or words, refusing none, and one of all."""
    if not values:
        raise ConfigError(
            f"density.condition = '{name}': no training network has one: train the zoo with "
            "data.validation above 0, or set density.condition = none"
        )
    low, high = min(values), max(values)
    if low == high:
        shown = low if isinstance(low, str) else f"{low:.6g}"
        raise ConfigError(
            f"density.condition = '{name}': every training network has the same, {shown}, so "
            "that nothing can be learnt from it: leave it out, or learn from networks that differ"
        )
    return low, high


def mixture(words: str) -> list[tuple[str, float]]:
    """Return (category, share) of each that words name, as `he` or `he:0.3,xavier:0.7`.

    Raises:
        ValueError: shares that are none, or do not sum to 1.
    """
    if ":" not in words:
        return [(words, 1.0)]
    pairs = [each.rpartition(":") for each in words.split(",")]
    found = [(category, float(share)) for category, _, share in pairs]
    whole = math.isclose(sum(share for _, share in found), 1, abs_tol=1e-6)
    if not whole or not all(share >= 0 for _, share in found):
        raise ValueError(words)
    return found
