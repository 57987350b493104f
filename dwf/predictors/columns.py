"""Columns as predictors: how networks were trained and what they are, without a look at weights.

Shape suffixes: N networks, F features, C categories.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwf.densities.conditions import are_words
from dwf.errors import ConfigError
from dwf.plain import Json, State
from dwf.predictors.config import ArchitectureConfig, HyperParametersConfig, is_measured
from dwf.predictors.examples import Examples
from dwf.predictors.headed import HeadedPredictor
from dwf.predictors.heads import Table
from dwf.run_folder import RunPart
from dwf.settings import flatten, to_dict
from dwf.zoo.moments import Sources
from dwf.zoo.store import Zoo

_WIDE = 100.0  # largest over smallest number, from which logarithms are taken
_MOST_WORDS = 256


@dataclass(frozen=True)
class Column:
    """How the values of one column become features."""

    name: str
    categories: tuple[str, ...] | None = None
    """Words that training networks have, a feature each; None of numbers."""
    is_log: bool = False
    """Whether the logarithm of a number is taken."""

    @classmethod
    def of(cls, name: str, values_N: np.ndarray) -> "Column":
        """Return that of training networks' values, numbers or words."""
        if are_words(values_N):
            categories = tuple(np.unique(values_N).tolist())
            if len(categories) > _MOST_WORDS:
                raise ConfigError(
                    f"column {name} has {len(categories)} different words, and {_MOST_WORDS} are "
                    "the most: it names networks, leave it out"
                )
            return cls(name, categories)
        known_N = values_N[np.isfinite(values_N)].astype(np.float64)
        is_log = len(known_N) > 0 and known_N.min() > 0
        return cls(name, is_log=bool(is_log and known_N.max() >= _WIDE * known_N.min()))

    def features(self, values_N: np.ndarray) -> np.ndarray:
        """Return features_NF, float64: NaN of numbers that are none, 0 of words not known."""
        if self.categories is not None:
            return (values_N.astype(str)[:, None] == np.array(self.categories)).astype(np.float64)
        if are_words(values_N):  # another zoo has a word there
            return np.full((len(values_N), 1), np.nan)
        numbers_N = values_N.astype(np.float64)
        numbers_N = np.where(np.isfinite(numbers_N), numbers_N, np.nan)
        if self.is_log:
            numbers_N = np.log(np.where(numbers_N > 0, numbers_N, np.nan))
        return numbers_N[:, None]


class ColumnPredictor(HeadedPredictor):
    """Base of predictors that are told columns alone; a kind gives `values_of`."""

    columns: tuple[Column, ...]

    def values_of(self, zoo: Zoo, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is told of some networks of a zoo: name -> array of shape [N].

        Raises:
            ConfigError: the zoo lacks a column.
        """
        raise NotImplementedError

    def _prepare(self, train: Examples, run: RunPart) -> None:
        table = self._table(train.sources)
        self.columns = tuple(Column.of(name, values_N) for name, values_N in table.items())

    def _table(self, sources: Sources) -> dict[str, np.ndarray]:
        tables = [self.values_of(zoo, rows) for zoo, rows in sources]
        names = tables[0] if tables else {}
        return {name: _joined([table[name] for table in tables]) for name in names}

    def features(self, sources: Sources) -> Table:
        """Return a feature for each number and each word; see the base."""
        table = self._table(sources)
        count = sum(len(rows) for _, rows in sources)
        parts = [column.features(table[column.name]) for column in self.columns if table]
        width = sum(len(column.categories or (None,)) for column in self.columns)
        # Of columns that tell nothing there is one that says so: the head is then a constant.
        nothing_N1 = np.zeros((count, 0 if width and parts else max(width, 1)))
        return Table(np.hstack([*parts, nothing_N1]))

    def _own(self) -> State:
        return [to_dict(column) for column in self.columns]

    def _take_own(self, own: State) -> None:
        self.columns = tuple(
            Column(
                each["name"],
                categories=None if each["categories"] is None else tuple(each["categories"]),
                is_log=each["is_log"],
            )
            for each in own
        )


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return one column of several zoos; where one has words, all are words."""
    if len({are_words(part) for part in parts}) > 1:
        parts = [part.astype(str) for part in parts]
    return np.concatenate(parts)


class HyperParameters(ColumnPredictor):
    """How networks were trained: what their zoo varies, in what its zoos differ, the epoch."""

    settings = HyperParametersConfig
    config: HyperParametersConfig
    names: tuple[str, ...]
    """Columns of the zoo that it is told."""
    differing: tuple[str, ...]
    """Settings of network and data in which the zoos that it learnt from differ."""

    def _prepare(self, train: Examples, run: RunPart) -> None:
        zoos = [zoo for zoo, rows in train.sources if len(rows)]
        if both := set(self.config.columns) & set(train.properties):
            raise ConfigError(
                f"columns has {', '.join(sorted(both))}, which is to be told: leave it out"
            )
        varied = dict.fromkeys(name for zoo in zoos for name in _varied(zoo))
        default = tuple(name for name in varied if name not in train.properties)
        self.names = self.config.columns or default
        self.differing = _differing(zoos)
        super()._prepare(train, run)

    def values_of(self, zoo: Zoo, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the zoo's columns, and its settings that other zoos have otherwise."""
        for name in self.names:
            if name not in zoo.columns:
                there = sorted(each for each in zoo.columns if not is_measured(each))
                raise ConfigError(
                    f"{zoo.path} has no column {name}, which hyper_parameters is told; it has "
                    f"{', '.join(there)}: name those that all zoos have by columns"
                )
        facts = _facts(zoo)
        return {name: zoo.columns[name][rows] for name in self.names} | {
            name: np.full(len(rows), _plain(facts.get(name))) for name in self.differing
        }

    def _own(self) -> State:
        own = {"columns": super()._own(), "names": list(self.names)}
        return own | {"differing": list(self.differing)}

    def _take_own(self, own: State) -> None:
        super()._take_own(own["columns"])
        self.names, self.differing = tuple(own["names"]), tuple(own["differing"])


def _varied(zoo: Zoo) -> list[str]:
    """Return the columns of what a zoo varies between its networks, and the epoch."""
    vary = vars(zoo.facts.vary) if zoo.facts.vary else {}
    named = [name for name, values in vary.items() if values is not None]
    return [name for name in (*named, "epoch") if name in zoo.columns]


def _facts(zoo: Zoo) -> dict[str, Json]:
    """Return settings of a zoo's networks and data by dotted names."""
    told = {"network": to_dict(zoo.facts.network)}
    return flatten(told | ({"data": to_dict(zoo.facts.data)} if zoo.facts.data else {}))


def _differing(zoos: Sequence[Zoo]) -> tuple[str, ...]:
    told = [_facts(zoo) for zoo in zoos]
    names = dict.fromkeys(name for facts in told for name in facts)
    return tuple(name for name in names if len({json.dumps(facts.get(name)) for facts in told}) > 1)


def _plain(value: Json) -> float | str:
    """Return a number as it is, and anything else as a word."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else json.dumps(value)


class Architecture(ColumnPredictor):
    """Architecture of networks, the data that they are for, their parameters and depth."""

    settings = ArchitectureConfig
    config: ArchitectureConfig

    def values_of(self, zoo: Zoo, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the same of all networks of a zoo."""
        learnt = [entry for entry in zoo.layout.entries if entry.is_learnt]
        told: dict[str, float | str] = {
            "architecture": json.dumps([to_dict(zoo.facts.network), zoo.layout.digest]),
            "parameters": float(sum(entry.size for entry in learnt)),
            "depth": float(sum(len(entry.shape) > 1 for entry in learnt)),
        }
        if self.config.data:
            told["data"] = json.dumps(zoo.facts.data and to_dict(zoo.facts.data))
        return {name: np.full(len(rows), value) for name, value in told.items()}
