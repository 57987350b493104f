"""Sets of a report split by a column of the zoo.

Shape suffix: S networks of a set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dwf.evaluation.report.columns import Column, accuracy_cell, number_cell, share_cell
from dwf.evaluation.report.sets import NetworkSet, statistics


@dataclass(frozen=True)
class Part:
    """Networks of a set that have one value in a column."""

    title: str
    """The set's."""
    value: str
    one: NetworkSet
    is_of_S: np.ndarray
    """Whether each network of the set is of the part, bool."""

    def values(self, measure: str) -> np.ndarray:
        """Return one measure of the part's networks."""
        return self.one.values(measure)[self.is_of_S]

    def median(self, measure: str) -> float | None:
        """Return the median of a measure; None where a number is not finite."""
        found = float(np.median(self.values(measure)))
        return found if np.isfinite(found) else None


SPLIT_COLUMNS: tuple[Column[Part], ...] = (
    Column("networks", lambda part: part.title),
    Column("value", lambda part: part.value),
    Column("n", lambda part: str(int(part.is_of_S.sum()))),
    Column(
        "accuracy (%)",
        lambda part: accuracy_cell(
            {"std": None} | _known(statistics(part.values(part.one.scored)))
        ),
    ),
    Column("distance", lambda part: number_cell(part.median("distance_ratio"))),
    Column("behaviour", lambda part: number_cell(part.median("behaviour_ratio"))),
    Column("good and novel", lambda part: share_cell(part.values("good_and_novel").mean())),
)
"""Table of the parts."""


def split_text(by: str) -> str:
    """Return how to read the table."""
    return (
        f"Each set split by `{by}`: originals and held-out networks by their own value, samples by "
        "what they were asked for, and, where they were not, by that of the training network "
        "nearest to them, as baselines. Limits and units are those of the whole zoo."
    )


def split_rows(sets: Sequence[NetworkSet], by: str) -> Iterator[Part]:
    """Yield the parts of all sets, in order; numbers in theirs, words by the alphabet."""
    for one in sets:
        values = one.networks[f"by_{by}"]
        for value in sorted(set(values)):
            is_of_S = np.array([each == value for each in values])
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            yield Part(one.label, shown, one, is_of_S)


def _known(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if np.isfinite(value)}
