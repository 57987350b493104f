"""A sweep that is a grid over numbers, seen as curves: which axes, which trials, which references.

Each number is an axis to draw along, while the others are held at their largest; the values of at
most one axis that is no number (as `generator`, its settings files) are the lines. Along
`zoo.count` what counts is how many networks were learnt from.
"""

import math
from dataclasses import dataclass

from dwf.plain import Json
from dwf.sweeps.report import Row, SweepReport, in_short, short_names

MOST_LINES = 8


@dataclass(frozen=True)
class Grid:
    """The trials of a full grid, by their places on its axes."""

    report: SweepReport
    numbers: tuple[str, ...]
    """Axes of numbers, that of the zoo's size first."""
    lines: str | None
    """The axis of the lines; None: there is one line."""

    @classmethod
    def of(cls, report: SweepReport) -> "Grid | None":
        """Return a sweep as a grid; None where it is none, or has no axis of numbers."""
        tried = report.tried
        numbers = [axis for axis in tried if all(_is_number(row[axis]) for row in report.rows)]
        others = [axis for axis in tried if axis not in numbers]
        counts = {axis: len({str(row[axis]) for row in report.rows}) for axis in tried}
        points = {tuple(str(row[axis]) for axis in tried) for row in report.rows}
        is_full = math.prod(counts.values()) == len(points) == len(report.rows)
        few = all(counts[axis] <= MOST_LINES for axis in others)
        if not numbers or len(others) > 1 or not is_full or not few or not report.references:
            return None
        numbers.sort(key=lambda axis: (axis != "zoo.count", -counts[axis]))
        return cls(report, tuple(numbers), lines=others[0] if others else None)

    @property
    def line_values(self) -> list[Json]:
        """The values of the lines, in order; `[None]` for one line."""
        return list(dict.fromkeys(self._line_value(row) for row in self.report.rows))

    def label(self, line: Json) -> str:
        """The name of a line: of a settings file, its stem."""
        if self.lines is None:
            return "samples"
        name = in_short(line)
        is_file = isinstance(line, str) and name != line
        return name if is_file else f"{self.lines.rpartition('.')[2]} = {name}"

    def title(self, axis: str) -> str:
        """The name of an axis of numbers."""
        if axis == "zoo.count":
            return "training networks"
        if axis == "generator.networks":
            return "networks learnt from"
        return short_names(self.numbers)[axis].replace("_", " ")

    def values(self, axis: str) -> list[float]:
        """The values of an axis of numbers, in order."""
        return sorted({row[axis] for row in self.report.rows})

    def place(self, axis: str, value: float) -> float:
        """Where a value lies: of the zoo's size, the networks that were learnt from."""
        if axis != "zoo.count":
            return value
        rows = (row for row in self.report.rows if row[axis] == value)
        return next((row["train_networks"] for row in rows if row.get("train_networks")), value)

    def held(self, axis: str) -> dict[str, float]:
        """The other axes of numbers at their largest values."""
        return {other: self.values(other)[-1] for other in self.numbers if other != axis}

    def row(self, line: Json, point: dict[str, float]) -> Row:
        """The trial of a line at a point of the numbers."""
        return next(
            row
            for row in self.report.rows
            if self._line_value(row) == line and all(row[axis] == at for axis, at in point.items())
        )

    def references(self, point: dict[str, float]) -> tuple[Row, ...]:
        """Return what stands beside the trials at a point: held-out networks and their baselines.

        Nothing where the lines learnt from different zoos or networks, or none was tested.
        """
        rows = [self.row(line, point) for line in self.line_values]
        tested = {(row["report"], row.get("test_subset")) for row in rows if "report" in row}
        if len(tested) != 1:
            return ()
        ((report, subset),) = tested
        return tuple(
            one
            for one in self.report.references[report]
            if one["family"] == "held-out" or one.get("subset") == subset
        )

    def _line_value(self, row: Row) -> Json:
        return None if self.lines is None else row[self.lines]


def held_out(references: tuple[Row, ...]) -> Row | None:
    """Return what the report says of held-out networks."""
    return next((one for one in references if one["family"] == "held-out"), None)


def best_baseline(references: tuple[Row, ...]) -> Row | None:
    """Return the baseline with the largest share; those that make one network have none."""
    baselines = [one for one in references if one["family"] != "held-out" and one["n"] > 1]
    return max(baselines, key=lambda one: one["good_and_novel"], default=None)


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
