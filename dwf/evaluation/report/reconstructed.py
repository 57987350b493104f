"""Sets of networks that went through a codec: their numbers, and the columns that show them.

Shape suffixes: S networks of a set, E tensors of a network.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dwf.evaluation.report.columns import Column, accuracy_cell, number_cell
from dwf.evaluation.report.sets import plain, statistics
from dwf.plain import Json


@dataclass(frozen=True)
class ReconstructedSet:
    """Networks and what came back."""

    title: str
    summary: dict[str, Json]
    """n, `rmse` and `relative` over all covered tensors, statistics of each measure."""
    tensors: dict[str, list[float | None]]
    """`rmse` and `relative` of each tensor; None where nothing varies."""
    networks: dict[str, list[Any]]
    """Measure -> one value for each network: `original` and `reconstructed` (accuracies, of
    networks with BatchNorm with own and with re-estimated running statistics), `drop`, `agreement`,
    losses; `original_recalibrated` and `reconstructed_own`: with the other ones' statistics;
    `reconstructed_beside` and `agreement_beside`, of codecs that draw what codes leave out: with
    the networks' own in its place."""

    @property
    def n(self) -> int:
        """How many networks."""
        return self.summary["n"]

    @property
    def error_columns(self) -> tuple[Column[int | None], ...]:
        """Columns of its errors in the table of tensors."""
        word = self.title.removesuffix(" networks")
        return (
            Column(f"relative error, {word}", lambda i: number_cell(self._error("relative", i))),
            Column(f"rmse, {word}", lambda i: small_cell(self._error("rmse", i))),
        )

    def _error(self, what: str, tensor: int | None) -> float | None:
        return self.summary[what] if tensor is None else self.tensors[what][tensor]


def _accuracy(measure: str) -> Callable[[ReconstructedSet], str]:
    return lambda one: accuracy_cell(one.summary[measure])


def small_cell(value: float | None) -> str:
    """Return a number with three digits."""
    return "-" if value is None else f"{value:.3g}"


_NETWORKS: Column[ReconstructedSet] = Column("networks", lambda one: one.title)
_N: Column[ReconstructedSet] = Column("n", lambda one: str(one.n))
COLUMNS: tuple[Column[ReconstructedSet], ...] = (
    _NETWORKS,
    _N,
    Column(
        "{split} accuracy (%): original",
        _accuracy("original"),
        words=(
            "Accuracy is mean +- standard deviation over all n networks; the drop is each "
            "network's accuracy minus that of its own reconstruction, so it may vary less than "
            "either."
        ),
    ),
    Column("reconstructed", _accuracy("reconstructed")),
    Column("drop (points)", _accuracy("drop")),
    Column(
        "same answers (%)",
        _accuracy("agreement"),
        words=(
            "Same answers: the share of images to which a network and its reconstruction give the "
            "same class, right or wrong."
        ),
    ),
    Column(
        "relative error",
        lambda one: number_cell(one.summary["relative"]),
        words=(
            "Relative error of a tensor: the root of the share of the networks' squared distance "
            "to the training networks' mean that is lost. 0 is exact; at 1 the mean itself, the "
            "same for all networks, would do as well. The line of all tensors counts those that "
            "the codec covers."
        ),
    ),
    Column("rmse", lambda one: small_cell(one.summary["rmse"])),
)
"""The main table: a row for each set."""
STATISTICS_COLUMNS: tuple[Column[ReconstructedSet], ...] = (
    _NETWORKS,
    _N,
    Column("original, own", _accuracy("original")),
    Column("original, re-estimated", _accuracy("original_recalibrated")),
    Column("reconstructed, own", _accuracy("reconstructed_own")),
    Column("reconstructed, re-estimated", _accuracy("reconstructed")),
)
"""Accuracy with other running statistics of BatchNorm."""


def reconstructed_set(
    title: str,
    columns: dict[str, np.ndarray],
    *,
    lost_E: np.ndarray,
    energy_E: np.ndarray,
    tensors: Sequence[dict[str, Json]],
) -> ReconstructedSet:
    """Summarise what came back of a set of networks.

    Args:
        title: what they are.
        columns: `network`, and the measures, shape [S]; see `ReconstructedSet.networks`.
        lost_E: squared error of each tensor, summed over its numbers and the networks.
        energy_E: squared distance to the training networks' mean, likewise.
        tensors: their names, shapes, and whether they are covered.
    """
    num = len(columns["network"])
    size_E = np.array([math.prod(tensor["shape"]) for tensor in tensors])
    covered_E = np.array([tensor["covered"] for tensor in tensors], bool)
    summary: dict[str, Json] = {"n": num} | {
        name: statistics(values_S) for name, values_S in columns.items() if name != "network"
    }
    count = num * size_E[covered_E].sum()
    summary["rmse"] = math.sqrt(lost_E[covered_E].sum() / count)
    summary["relative"] = _relative(lost_E[covered_E].sum(), energy_E[covered_E].sum())
    errors = {
        "rmse": np.sqrt(lost_E / (num * size_E)).tolist(),
        "relative": [_relative(*pair) for pair in zip(lost_E, energy_E, strict=True)],
    }
    networks = {name: values_S.tolist() for name, values_S in columns.items()}
    return ReconstructedSet(title, plain(summary), tensors=plain(errors), networks=plain(networks))


def _relative(lost: float, energy: float) -> float | None:
    return math.sqrt(lost / energy) if energy > 0 else None
