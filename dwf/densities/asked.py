"""Requests to a density: values of conditions for each sample, and how strongly.

The value of a sample depends on its number alone, however many are drawn.

Shape suffixes: N samples, P numbers of all conditions.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dwf.errors import ConfigError
from dwf.plain import Json
from dwf.settings import Bounds

if TYPE_CHECKING:
    from dwf.densities.conditions import Condition, Conditions

Wanted = float | Sequence[str] | None
"""Request for samples: the number of the one that is a number, or `name=value` of some."""
Guidance = float | Sequence[str]
"""How strongly: one number for all conditions together, or `name=number` of some."""
# Multiples of their roots fill [0, 1] evenly, and independently of each other.
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)


class Choice(ABC):
    """Base of the values of one condition that samples are asked for."""

    length: int = 1
    """How many there are, where samples take them in turn."""
    values: tuple[float | str, ...]
    """Values that it has, or lies between."""

    @property
    @abstractmethod
    def told(self) -> float | str:
        """Plain data that says it."""

    @abstractmethod
    def at(self, numbers_N: np.ndarray, *, stride: int, place: int) -> np.ndarray:
        """Return the value of each sample.

        Args:
            numbers_N: numbers of the samples.
            stride: how many samples in a row have the same, of those that take them in turn.
            place: place of the condition among all.
        """


@dataclass(frozen=True)
class Turns(Choice):
    """Values that samples take in turn, or one value of all."""

    values: tuple[float | str, ...]

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def told(self) -> float | str:
        """The one value, or `each`."""
        return self.values[0] if len(self.values) == 1 else "each"

    def at(self, numbers_N: np.ndarray, *, stride: int, place: int) -> np.ndarray:
        """Return the value of each sample."""
        return np.array(self.values)[numbers_N // stride % len(self.values)]


@dataclass(frozen=True)
class Spread(Choice):
    """Numbers spread evenly from one to another."""

    low: float
    high: float

    @property
    def values(self) -> tuple[float, ...]:
        """Both ends."""
        return self.low, self.high

    @property
    def told(self) -> str:
        """Both ends in words, to the last digit."""
        return f"{self.low}..{self.high}"

    def at(self, numbers_N: np.ndarray, *, stride: int, place: int) -> np.ndarray:
        """Return the number of each sample."""
        share_N = (numbers_N + 1) * math.sqrt(_PRIMES[place % len(_PRIMES)]) % 1.0
        return self.low + (self.high - self.low) * share_N


@dataclass(frozen=True)
class Asked:
    """Request for samples, understood."""

    conditions: "Conditions"
    """Conditions of the density."""
    choices: dict[str, Choice]
    """Condition -> values; of those that are asked for."""
    guidance: float | tuple[float, ...]
    """How strongly: of all together, or of each condition by itself."""

    @classmethod
    def of(cls, conditions: "Conditions", wanted: Wanted, *, guidance: Guidance = 1.0) -> "Asked":
        """Return what is asked for, understood.

        Args:
            conditions: of the density.
            wanted: values of them.
            guidance: how strongly they count.

        Raises:
            ConfigError: a condition that was not learnt, or a value of it; or one is asked twice.
        """
        by_name = {one.name: one for one in conditions.each}
        pairs = [_pair(conditions, each, by_name, "condition") for each in _listed(wanted)]
        choices = {name: by_name[name].understand(words) for name, words in pairs}
        if len(choices) < len(pairs):
            raise ConfigError(f"condition = {' '.join(wanted)}: ask for each condition once")
        return cls(conditions, choices, guidance=_strength(conditions, guidance, choices))

    @property
    def is_guided(self) -> bool:
        """Whether any condition counts otherwise than it was learnt."""
        guidance = self.guidance
        return any(one != 1 for one in (guidance if isinstance(guidance, tuple) else (guidance,)))

    @property
    def is_constant(self) -> bool:
        """Whether all samples are asked for the same."""
        return all(isinstance(one, Turns) and one.length == 1 for one in self.choices.values())

    @property
    def is_whole(self) -> bool:
        """Whether every condition is asked for."""
        return len(self.choices) == len(self.conditions.each)

    @property
    def facts(self) -> dict[str, Json]:
        """Plain data for provenance: `condition`, name -> words, and `guidance`."""
        guidance = self.guidance
        if isinstance(guidance, tuple):
            guidance = dict(zip(self.conditions.names, guidance, strict=True))
        told = {name: choice.told for name, choice in self.choices.items()}
        return {"condition": told, "guidance": guidance}

    def values(self, first: int, count: int) -> dict[str, np.ndarray]:
        """Return condition -> values_N that samples are asked for, numbers or words.

        Args:
            first: number of the first sample.
            count: N.
        """
        return self.values_of(np.arange(first, first + count))

    def values_of(self, numbers_N: np.ndarray) -> dict[str, np.ndarray]:
        """Return condition -> values_N of samples, by their numbers."""
        found, stride = {}, 1
        for place, name in enumerate(self.conditions.names):
            if name in self.choices:
                choice = self.choices[name]
                found[name] = choice.at(numbers_N, stride=stride, place=place)
                stride *= choice.length
        return found

    def rows(self, first: int, count: int) -> torch.Tensor:
        """Return condition_NP as the network takes it; [1, P] where all samples have the same.

        Args:
            first: number of the first sample.
            count: N.
        """
        if self.is_constant:
            first, count = 0, 1
        return self.conditions.encode(self.values(first, count), count)


def again(
    condition: dict[str, Json] | None, guidance: float | dict[str, float] | None
) -> tuple[Wanted, Guidance]:
    """Return how to ask for what samples were asked for before.

    Args:
        condition: what their provenance tells, see `Asked.facts`; None: nothing was asked for.
        guidance: likewise.
    """
    if condition is None:
        return None, 1.0
    wanted = [f"{name}={told}" for name, told in condition.items()]
    if not isinstance(guidance, dict):
        return wanted, guidance
    return wanted, [f"{name}={weight}" for name, weight in guidance.items() if name in condition]


def _listed(wanted: Wanted) -> Sequence[str]:
    if wanted is None:
        return ()
    return (repr(float(wanted)),) if isinstance(wanted, (int, float)) else wanted


def _pair(
    conditions: "Conditions", words: str, by_name: "dict[str, Condition]", what: str
) -> tuple[str, str]:
    """Return (name, value) of `name=value`, or of the value of the only number."""
    name, equals, value = words.partition("=")
    if not equals:
        numbers = [one.name for one in conditions.each if one.size == 1]
        if len(numbers) != 1:
            raise ConfigError(
                f"{what} = {words}: which condition is meant is not known: give name=value, of "
                f"{conditions.known}"
            )
        return numbers[0], words
    if name not in by_name:
        raise ConfigError(
            f"{what} {words!r}: this density was told no {name}: ask for {conditions.known}"
        )
    return name, value


def _strength(
    conditions: "Conditions", guidance: Guidance, choices: dict[str, Choice]
) -> float | tuple[float, ...]:
    """Return guidance as a number, or one of each condition."""
    if isinstance(guidance, (int, float)):
        return float(guidance)
    by_name = {one.name: one for one in conditions.each}
    found = dict.fromkeys(conditions.names, 1.0)
    for words in guidance:
        name, value = _pair(conditions, words, by_name, "guidance")
        if name not in choices:
            raise ConfigError(
                f"guidance {words!r} exaggerates a condition that is not asked for: give "
                f"condition {name}=..., or leave its guidance out"
            )
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if found[name] not in (bounds := Bounds(0, open=True)):
            raise ConfigError(f"guidance {words!r}: expected a number {bounds.in_full}")
    return tuple(found.values())
