"""The figure of an audit: accuracy against distance, of every row and every null arm.

Shape suffixes: S networks of a line.
"""

from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dwf.audit.table import AuditReport, Line
from dwf.evaluation.measure import FAMILIES
from dwf.evaluation.report import (
    HELD_OUT_COLOUR,
    ORIGINAL_COLOUR,
    SAMPLE_COLOURS,
    SAMPLE_MARKERS,
    STYLE,
    Width,
    legend_below,
    legend_beside,
    panels,
    save_figures,
)

CAPTION = "Accuracy against distance"
EXPLAINED = (
    "A point is the median of a row or null arm, its cross the middle half of its networks. Null "
    "arms of one kind are joined by a line."
)
_QUARTILES = (25, 50, 75)
_FAR = 2.0  # times the zoo's own distance: beyond it nothing is told apart that matters


def draw(report: AuditReport, folder: Path) -> dict[str, Path]:
    """Write `audit.png`; return caption -> file."""
    with matplotlib.rc_context(STYLE):
        return save_figures({"audit.png": (CAPTION, partial(accuracy_at_distance, report))}, folder)


def accuracy_at_distance(report: AuditReport, width: Width) -> Figure:
    """One panel for each zoo: accuracy against distance, of every row and null arm."""
    height = 3.4 if width.is_narrow else 3.6
    figure, each_axes = panels(width, len(report.zoos), height=height, across=1)
    for axes, zoo in zip(each_axes, report.zoos, strict=True):
        _panel(axes, report.of_zoo(zoo), title=zoo)
    if width.is_narrow and len(each_axes) == 1:
        legend_below(figure, each_axes[0], width=width)
    else:
        for axes in each_axes:
            legend_beside(axes, width)
    return figure


def _panel(axes: Axes, lines: list[Line], *, title: str) -> None:
    labelled: set[str] = set()
    rows = [line for line in lines if line.is_row]
    for family in FAMILIES:
        points = [_middle(line)[:, 1] for line in lines if line.one.family == family]
        if len(points) > 1:
            axes.plot(*np.array(points).T, color=FAMILIES[family].colour, linewidth=0.8, alpha=0.5)
    for line in lines:
        colour, marker, label = _look(line, rows)
        (low, x, high), (worse, y, better) = _middle(line)
        own = {"xerr": [[x - low], [high - x]], "yerr": [[y - worse], [better - y]]}
        given = None if label in labelled else label
        size = 6 if line.is_row else 4
        axes.errorbar(
            x, y, **own, fmt=marker, color=colour, markersize=size, elinewidth=0.8, label=given
        )
        labelled.add(label)
    if max(_middle(line)[0, 1] for line in lines) > _FAR:
        axes.set_xscale("symlog", linthresh=_FAR)  # one row that went astray hides no other
    axes.set_title(title)
    axes.set_xlabel("distance to the nearest training network\n(zoo's own median = 1)")
    axes.set_ylabel("test accuracy (%)")


def _middle(line: Line) -> np.ndarray:
    """Return quartiles of distance ratio and of accuracy in percent, [2, 3]."""
    values = line.one.values("distance_ratio"), 100 * line.one.accuracy_S
    return np.array([np.nanpercentile(values_S, _QUARTILES) for values_S in values])


def _look(line: Line, rows: list[Line]) -> tuple[str, str, str]:
    """Return colour, marker and label of a line."""
    one = line.one
    if line.is_row:
        index = rows.index(line)
        each = len(SAMPLE_COLOURS)
        marker = SAMPLE_MARKERS[(index + index // each) % len(SAMPLE_MARKERS)]
        return SAMPLE_COLOURS[index % each], marker, f"{one.title}: {one.mark}"
    if one.is_baseline:
        family = FAMILIES[one.family]
        return family.colour, family.marker, family.label
    colour = ORIGINAL_COLOUR if one.family == "originals" else HELD_OUT_COLOUR
    return colour, "o", one.title
