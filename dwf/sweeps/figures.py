"""The figure of a sweep: what trials were judged by, and their test accuracy, over the space."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from dwf.evaluation.report import (
    INK,
    LINE_COLOURS,
    SAMPLE_MARKERS,
    STYLE,
    Width,
    legend_below,
    panels,
    save_figures,
    share_interval,
)
from dwf.sweeps.report import Row, SweepReport, in_short, short_names

_PERCENT = ("accuracy", "good_and_novel", "accurate")
_MOST_LINES = 8
_LONGEST_LABEL = 12
_STATES = {"stopped": "#808080", "failed": "#C23B3B"}
FIGURE, CAPTION = "trials.png", "Trials over the space"


def draw_trials(report: SweepReport, folder: Path) -> dict[str, Path]:
    """Draw all trials; return caption -> PNG file, none where no trial was finished.

    Args:
        report: the numbers.
        folder: where to write.
    """
    if not _finished(report):
        return {}
    with matplotlib.rc_context(STYLE):
        return save_figures({FIGURE: (CAPTION, partial(trials_figure, report))}, folder)


def trials_figure(report: SweepReport, width: Width) -> Figure:
    """Lines over two listed axes, else one panel of points for each axis; stopped trials as well.

    The left panel has what the best was chosen by, the right one test accuracy.
    """
    rows = _finished(report)
    columns = list(dict.fromkeys((report.chosen, "test_accuracy")))
    split = _lines(report, rows)
    axes = [split[0]] if split else report.tried or list(report.axes[:1])
    figure, each_axes = panels(width, len(columns) * len(axes), height=2.6, across=len(columns))
    pairs = [(axis, column) for axis in axes for column in columns]
    for panel, (axis, column) in zip(each_axes, pairs, strict=True):
        _draw(panel, report, rows, axis, column, split[1] if split else None)
    legend_below(figure, each_axes[0], width=width)
    return figure


def _finished(report: SweepReport) -> list[Row]:
    return [row for row in report.rows if row.get(report.chosen) is not None]


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
    others = [row for row in report.rows if row.get(report.chosen) is None]
    positions, labels = _positions([*rows, *others], axis)
    scale = 100 if column.endswith(_PERCENT) else 1
    values = [scale * row[column] if row[column] is not None else np.nan for row in rows]
    ends = [_ends(row, column, value) for row, value in zip(rows, values, strict=True)]
    values_of_line = {str(row[line]): row[line] for row in rows} if line else {"": None}
    for index, (name, value) in enumerate(values_of_line.items()):
        mine = [i for i, row in enumerate(rows) if line is None or str(row[line]) == name]
        mine.sort(key=lambda i: positions[i])
        panel.errorbar(
            [positions[i] for i in mine],
            [values[i] for i in mine],
            yerr=np.array([ends[i] for i in mine]).T if np.any(ends) else None,
            color=LINE_COLOURS[index % len(LINE_COLOURS)],
            marker=SAMPLE_MARKERS[index % len(SAMPLE_MARKERS)],
            linestyle="-" if line else "none",
            capsize=2,
            elinewidth=0.8,
            label=f"{_last(line)} = {in_short(value)}" if line else None,
        )
    _draw_others(panel, others, positions[len(rows) :])
    for i, row in enumerate(rows):
        if row["trial"] == report.best:
            label = f"best by {report.metric.replace('val_', 'validation ').replace('_', ' ')}"
            ring = {"facecolors": "none", "edgecolors": INK, "s": 60, "zorder": 5}
            panel.scatter([positions[i]], [values[i]], label=label, **ring)
    _label(panel, report, axis, column, labels)


def _ends(row: Row, column: str, value: float) -> tuple[float, float]:
    """Return how far a bar reaches below and above a value: never out of 0 to 100 %."""
    if not column.endswith(_PERCENT) or math.isnan(value):
        return 0.0, 0.0
    if f"{column}_std" in row:
        std = 100 * (row[f"{column}_std"] or 0)
        return min(std, value), min(std, 100 - value)
    low, high = share_interval(value / 100, row["n"])
    return value - 100 * low, 100 * high - value


def _draw_others(panel: Axes, rows: Sequence[Row], positions: Sequence[float]) -> None:
    """Put trials without samples on the lower edge, by what became of them."""
    for state, colour in _STATES.items():
        at = [place for row, place in zip(rows, positions, strict=True) if row["state"] == state]
        if at:
            look = {"marker": "x", "color": colour, "s": 18, "linewidths": 1, "clip_on": False}
            edge = panel.get_xaxis_transform()
            panel.scatter(at, [0.02] * len(at), transform=edge, label=state, **look)


def _label(
    panel: Axes, report: SweepReport, axis: str, column: str, labels: dict[float, str]
) -> None:
    if axis in report.logarithmic:
        _log_axis(panel)
    if len(labels) <= _MOST_LINES and not any(isinstance(at, float) for at in labels):
        is_long = max(map(len, labels.values())) > _LONGEST_LABEL
        turned = {"rotation": 15, "ha": "right"} if is_long else {}
        panel.set_xticks(list(labels), list(labels.values()), **turned)
        panel.set_xticks([], minor=True)
    panel.set_xlabel(short_names(report.axes)[axis].replace("_", " "))
    words = column.replace("val_", "validation ").replace("_", " ")
    panel.set_ylabel(words + (" (%)" if column.endswith(_PERCENT) else ""))
    chose = "for the choice" if column.startswith("val_") else "for the report alone"
    panel.set_title(f"{words.split(' ')[0]}: {chose}")


def _log_axis(panel: Axes) -> None:
    """Make the horizontal axis logarithmic, with numbers that do not run into each other."""
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    subs = (1, 2, 5) if high < 200 * low else (1,)
    panel.xaxis.set_major_locator(LogLocator(subs=subs))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def _positions(rows: list[Row], axis: str) -> tuple[list[float], dict[float, str]]:
    """Where each row lies along an axis, and what is written there."""
    values = [row[axis] for row in rows]
    if _is_numeric(rows, axis):
        return values, {value: in_short(value) for value in sorted(set(values))}
    by_name = {str(value): value for value in values}
    places = {name: place for place, name in enumerate(by_name, start=1)}
    labels = {places[name]: in_short(value) for name, value in by_name.items()}
    return [places[str(value)] for value in values], labels


def _is_numeric(rows: Sequence[Row], axis: str) -> bool:
    return all(
        isinstance(row[axis], (int, float)) and not isinstance(row[axis], bool) for row in rows
    )


def _last(axis: str | None) -> str | None:
    return axis.rpartition(".")[2] if axis else axis
