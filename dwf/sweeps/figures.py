"""The figure of a sweep: what trials were judged by, and their test accuracy, over the space."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dwf.evaluation.report import HELD_OUT_COLOUR, SAMPLE_COLOURS, SAMPLE_MARKERS, STYLE
from dwf.run_folder import replacing
from dwf.sweeps.report import Row, SweepReport

_PERCENT = ("accuracy", "good_and_novel", "accurate")
COLOURS = (HELD_OUT_COLOUR, *SAMPLE_COLOURS)
_MOST_LINES = 8
_LONGEST_LABEL = 12
_WIDE = 6  # numbers that span more than this factor are drawn on a log scale


def draw_trials(report: SweepReport, path: Path) -> None:
    """Draw all trials: lines over two listed axes, else one panel of points for each axis.

    Args:
        report: the numbers.
        path: the PNG file.
    """
    rows = [row for row in report.rows if row.get(report.chosen) is not None]
    if not rows:
        return
    columns = list(dict.fromkeys((report.chosen, "test_accuracy")))
    split = _lines(report, rows)
    with matplotlib.rc_context(STYLE):
        axes = [split[0]] if split else report.tried or list(report.axes[:1])
        figure = Figure(
            figsize=(5.2 * (len(columns) if split else len(axes)), 4.0 if split else 7.4)
        )
        shape = (1, len(columns)) if split else (len(columns), len(axes))
        panels = figure.subplots(*shape, squeeze=False).reshape(len(columns), len(axes))
        for panels_of_column, column in zip(panels, columns, strict=True):
            for panel, axis in zip(panels_of_column, axes, strict=True):
                _draw(panel, report, rows, axis, column, split[1] if split else None)
        figure.suptitle(f"sweep {report.name}: {len(rows)} of {len(report.rows)} trials finished")
        figure.tight_layout()
        with replacing(path) as partial:
            figure.savefig(partial, format="png", metadata={"Software": None})


def _lines(report: SweepReport, rows: Sequence[Row]) -> tuple[str, str] | None:
    """The axis to draw along and the axis of the lines, where two axes were tried in full."""
    if len(report.tried) != 2:
        return None
    counts = {axis: len({str(row[axis]) for row in rows}) for axis in report.tried}
    if math.prod(counts.values()) > len(rows):
        return None
    numeric = [axis for axis in report.tried if _is_numeric(rows, axis)]
    along = max(numeric or report.tried, key=lambda axis: counts[axis])
    (other,) = (axis for axis in report.tried if axis != along)
    return (along, other) if counts[other] <= _MOST_LINES else None


def _draw(
    panel: Axes, report: SweepReport, rows: list[Row], axis: str, column: str, line: str | None
) -> None:
    positions, labels = _positions(rows, axis)
    scale = 100 if column.endswith(_PERCENT) else 1
    values = [scale * row[column] if row[column] is not None else np.nan for row in rows]
    stds = [scale * (row.get(f"{column}_std") or 0) for row in rows]
    values_of_line = list(dict.fromkeys(str(row[line]) for row in rows)) if line else [""]
    for index, value in enumerate(values_of_line):
        mine = [i for i, row in enumerate(rows) if line is None or str(row[line]) == value]
        mine.sort(key=lambda i: positions[i])
        panel.errorbar(
            [positions[i] for i in mine],
            [values[i] for i in mine],
            yerr=[stds[i] for i in mine] if any(stds) else None,
            color=COLOURS[index % len(COLOURS)],
            marker=SAMPLE_MARKERS[index % len(SAMPLE_MARKERS)],
            linestyle="-" if line else "none",
            capsize=3,
            elinewidth=0.8,
            label=f"{_last(line)} = {value}" if line else None,
        )
    for i, row in enumerate(rows):
        if row["trial"] == report.best:
            label = f"best by {report.metric}"
            ring = {"facecolors": "none", "edgecolors": "black", "s": 160, "zorder": 5}
            panel.scatter([positions[i]], [values[i]], label=label, **ring)
    _label(panel, axis, column, positions, labels)


def _label(
    panel: Axes, axis: str, column: str, positions: list[float], labels: dict[float, str]
) -> None:
    if min(positions) > 0 and max(positions) >= _WIDE * min(positions):
        panel.set_xscale("log")
    if len(labels) <= _MOST_LINES and not any(isinstance(at, float) for at in labels):
        is_long = max(map(len, labels.values())) > _LONGEST_LABEL
        turned = {"rotation": 15, "ha": "right"} if is_long else {}
        panel.set_xticks(list(labels), list(labels.values()), **turned)
        panel.set_xticks([], minor=True)
    panel.set_xlabel(axis)
    words = column.replace("val_", "validation ").replace("_", " ")
    panel.set_ylabel(words + (" (%)" if column.endswith(_PERCENT) else ""))
    chose = "for the choice" if column.startswith("val_") else "for the report alone"
    panel.set_title(f"{words.split(' ')[0]}: {chose}")
    panel.legend(loc="best", fontsize=9)


def _positions(rows: list[Row], axis: str) -> tuple[list[float], dict[float, str]]:
    """Where each row lies along an axis, and what is written there."""
    values = [row[axis] for row in rows]
    if _is_numeric(rows, axis):
        return values, {
            v: f"{v:.4g}" if isinstance(v, float) else str(v) for v in sorted(set(values))
        }
    places = {name: place for place, name in enumerate(dict.fromkeys(map(str, values)), start=1)}
    return [places[str(v)] for v in values], {p: Path(n).stem for n, p in places.items()}


def _is_numeric(rows: Sequence[Row], axis: str) -> bool:
    return all(
        isinstance(row[axis], (int, float)) and not isinstance(row[axis], bool) for row in rows
    )


def _last(axis: str | None) -> str | None:
    return axis.rpartition(".")[2] if axis else axis
