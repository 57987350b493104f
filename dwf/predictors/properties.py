"""Properties of networks: columns of their zoos, measured ones, and what is computed of these.

Scores on test images may be told: they are targets here, never shown to a predictor.

Shape suffixes: N rows of a zoo, P properties.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwf.densities.conditions import are_words
from dwf.errors import ConfigError
from dwf.measurements.columns import (
    GAP,
    OF_GAP,
    images_of,
    measured,
    settings_behind,
    stand_ins,
)
from dwf.plain import Json
from dwf.zoo.store import Zoo

_NO_PROPERTIES = ("network", "seed", "split", "checksum")


@dataclass(frozen=True)
class Property:
    """One property of the networks of several zoos."""

    name: str
    values: tuple[np.ndarray, ...]
    """Values of each zoo's rows, float64; NaN where it was not measured."""
    images: int | None
    """Number of images behind a share; None: it is no share of images."""


def read_properties(zoos: Sequence[Zoo], names: Sequence[str], *, root: Path) -> list[Property]:
    """Return properties of all rows of some zoos.

    Args:
        zoos: whose.
        names: of the properties.
        root: folder that holds zoos/ and runs/, where measured columns are.

    Raises:
        ConfigError: a zoo has no such column, or one of words; or two zoos measured it by
            different settings, or, of the same data, on different numbers of images. Names the
            zoo and what it has.
    """
    tables = [Columns(zoo, root) for zoo in zoos]
    return [_read(name, tables) for name in names]


def _read(name: str, tables: Sequence["Columns"]) -> Property:
    values = tuple(table.read(name) for table in tables)
    images = [table.images(name) for table in tables]
    _refuse_two_meanings(name, tables)
    known = [count for count in images if count is not None]
    return Property(name, values, max(known) if len(known) == len(images) else None)


def _refuse_two_meanings(name: str, tables: Sequence["Columns"]) -> None:
    """Refuse a column that is not the same measure in all zoos."""
    meant = [table.meaning(name) for table in tables]
    first = tables[0]
    for table, (settings, count) in zip(tables, meant, strict=True):
        if settings != meant[0][0]:
            raise ConfigError(
                f"{name} of {first.zoo.path} is measured by {_words(meant[0][0])} and that of "
                f"{table.zoo.path} by {_words(settings)}: measure both alike, with dwf measure, "
                "or leave one out"
            )
        same_data = [t.zoo.facts.data == table.zoo.facts.data for t in tables].index(True)
        if count != meant[same_data][1]:
            raise ConfigError(
                f"{name} of {tables[same_data].zoo.path} is of {meant[same_data][1]} images and "
                f"that of {table.zoo.path} of {count}, of the same data: measure both alike, with "
                "dwf measure"
            )


def _words(settings: dict[str, Json]) -> str:
    return str(settings) if settings else "what made the zoo"


class Columns:
    """All columns of a zoo, its own and those that were measured, which come first.

    Args:
        zoo: the zoo.
        root: folder that holds zoos/ and runs/.
    """

    def __init__(self, zoo: Zoo, root: Path):
        self.zoo, self.root = zoo, root
        found = measured(zoo, root)
        self._stand_ins = stand_ins(zoo, root)
        self.all = zoo.columns | found | {n: found[one] for n, one in self._stand_ins.items()}

    def has(self, name: str) -> bool:
        """Whether it is a column, or can be computed of some."""
        return name in self.all or (name == GAP and self._has_gap)

    @property
    def _has_gap(self) -> bool:
        return all(each in self.zoo.columns for each in OF_GAP)

    def meaning(self, name: str) -> tuple[dict[str, Json], int | None]:
        """Return the settings that a property is measured by, and on how many images.

        No settings of what the zoo's own table has, and of what is the same number.
        """
        name_there = self._stand_ins.get(name, name)
        if name == GAP and self._has_gap:
            return {}, None
        settings, images = settings_behind(self.zoo, self.root, column=name_there)
        return {} if name in self._stand_ins else settings, images

    def read(self, name: str) -> np.ndarray:
        """Return values_N of a property, float64.

        Raises:
            ConfigError: there is no such column, or it holds words.
        """
        if name == GAP and self._has_gap:
            train_N, test_N = (self.read(each) for each in OF_GAP)
            return train_N - test_N
        if name not in self.all or name in _NO_PROPERTIES:
            raise ConfigError(
                f"properties: {self.zoo.path} has no property {name!r}; it has "
                f"{', '.join(self.names)}; others are measured with dwf measure"
            )
        values_N = self.all[name]
        if are_words(values_N):
            raise ConfigError(
                f"properties: {name} of {self.zoo.path} holds words (as {str(values_N[0])!r}), and "
                f"what is told is a number; numbers are {', '.join(self.names)}"
            )
        return values_N.astype(np.float64)

    @property
    def names(self) -> list[str]:
        """Names of all properties that are numbers."""
        found = [name for name, v in self.all.items() if not are_words(v)]
        found += [GAP] * (GAP not in found and self.has(GAP))
        return sorted(set(found) - set(_NO_PROPERTIES))

    def images(self, name: str) -> int | None:
        """Return the number of images behind a share; None where it is none, or nobody knows."""
        return images_of(self.zoo, self.root, column=self._stand_ins.get(name, name))
