"""Curves of a sweep over numbers, as a figure and as tables: what it takes to generalise.

sweeps/NAME/curves.png    the share of good and novel samples along each number
sweeps/NAME/curves.md     this share, test accuracy, distance and mark of every trial and baseline

Everything here is of test networks and test images, by which nothing was chosen.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dwf.evaluation.report import (
    HELD_OUT_COLOUR,
    LINE_COLOURS,
    SAMPLE_MARKERS,
    STYLE,
    Width,
    accuracy_cell,
    files_of,
    legend_below,
    markdown_table,
    number_cell,
    panels,
    save_figures,
    share_interval,
)
from dwf.plain import for_markdown
from dwf.run_folder import write_text
from dwf.sweeps.grids import Grid, best_baseline, held_out
from dwf.sweeps.report import Row, SweepReport

FIGURE, CAPTION = "curves.png", "Good and novel along each number"
_BASELINE_COLOUR = "#777777"


def _share(row: Row) -> str:
    low, high = share_interval(row["good_and_novel"], row["n"])
    return f"{100 * row['good_and_novel']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _accuracy(row: Row) -> str:
    return accuracy_cell({"mean": row["test_accuracy"], "std": row["test_accuracy_std"]})


def _distance(row: Row) -> str:
    return number_cell(row["distance_ratio"])


def _mark(row: Row) -> str:
    return row["mark"]


MEASURES = {
    "Good and novel (%, with the 95 % interval of a share of n)": _share,
    "Test accuracy (%)": _accuracy,
    "Distance to the nearest training network (median, the zoo's own is 1)": _distance,
    "Mark (what the networks are, by the report's rules)": _mark,
}
"""Title of a table -> what its cells say of a trial or a baseline."""


def write_curves(report: SweepReport, folder: Path) -> dict[str, Path]:
    """Write figure and tables of a sweep that is a grid over numbers.

    Args:
        report: the numbers.
        folder: the sweep's.

    Returns:
        Caption -> PNG file; of another sweep nothing, and what it was before is removed.
    """
    grid = Grid.of(report)
    if grid is None:
        for path in [folder / "curves.md", *files_of(folder / FIGURE)]:
            path.unlink(missing_ok=True)
        return {}
    write_text(folder / "curves.md", for_markdown(curves_text(grid)))
    with matplotlib.rc_context(STYLE):
        return save_figures({FIGURE: (CAPTION, partial(curves_figure, grid))}, folder)


def curves_figure(grid: Grid, width: Width) -> Figure:
    """Draw the share of good and novel samples, a panel for each axis of numbers."""
    figure, each_axes = panels(width, len(grid.numbers), height=2.6)
    for panel, axis in zip(each_axes, grid.numbers, strict=True):
        _draw(panel, grid, axis)
        panel.set_ylabel("good and novel (%), test")
    legend_below(figure, each_axes[0], width=width)
    return figure


def _draw(panel: Axes, grid: Grid, axis: str) -> None:
    values, held = grid.values(axis), grid.held(axis)
    points = [held | {axis: value} for value in values]
    places = [grid.place(axis, value) for value in values]
    references = [grid.references(point) for point in points]
    look = {"linestyle": ":", "color": HELD_OUT_COLOUR, "label": "held-out networks"}
    _line(panel, places, [held_out(one) for one in references], **look)
    look = {"linestyle": "--", "color": _BASELINE_COLOUR, "label": "best baseline"}
    _line(panel, places, [best_baseline(one) for one in references], **look)
    for index, line in enumerate(grid.line_values):
        rows = [_tested(grid.row(line, point)) for point in points]
        look = {"color": LINE_COLOURS[index], "label": grid.label(line)}
        look |= {"marker": SAMPLE_MARKERS[index % len(SAMPLE_MARKERS)]}
        # Smaller from line to line: those that lie on each other are seen.
        _line(panel, places, rows, markersize=max(2.5, 6 - 1.2 * index), **look)
    panel.set_xscale("log")
    panel.set_xticks(places, [f"{place:,.6g}" for place in places])
    panel.set_xticks([], minor=True)
    panel.set_xlabel(grid.title(axis))
    panel.set_ylim(-3, 103)
    at = ", ".join(
        f"{grid.title(other)} {grid.place(other, value):,.6g}" for other, value in held.items()
    )
    panel.set_title(f"at {at}" if at else "")


def _line(panel: Axes, places: Sequence[float], rows: Sequence[Row | None], **look: object) -> None:
    """Draw shares with their intervals, where there are any."""
    there = [(place, row) for place, row in zip(places, rows, strict=True) if row is not None]
    if not there:
        return
    shares = [row["good_and_novel"] for _, row in there]
    ends = [share_interval(row["good_and_novel"], row["n"]) for _, row in there]
    errors = [
        [100 * (share - low) for share, (low, _) in zip(shares, ends, strict=True)],
        [100 * (high - share) for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    heights = [100 * share for share in shares]
    at = [place for place, _ in there]
    panel.errorbar(at, heights, yerr=errors, capsize=3, elinewidth=0.8, **look)


def curves_text(grid: Grid) -> str:
    """Return the tables as Markdown: a row for each line and baseline, a column for each size."""
    along, others = grid.numbers[0], grid.numbers[1:]
    columns = [grid.place(along, value) for value in grid.values(along)]
    lines = "settings" if grid.lines is None else grid.lines
    heading = (lines, *map(grid.title, others), *(f"{column:,.6g}" for column in columns))
    parts = [f"# Curves of sweep {grid.report.name}", _introduction(grid)]
    for title, cell in MEASURES.items():
        rows = [*_trial_rows(grid, cell), *_reference_rows(grid, cell)]
        parts += [f"## {title}", markdown_table(heading, rows)]
    return "\n\n".join(parts) + "\n"


def _introduction(grid: Grid) -> str:
    counts = sorted({row["n"] for row in grid.report.rows if row.get("n")})
    drawn = " or ".join(map(str, counts))
    return (
        f"Columns: {grid.title(grid.numbers[0])}. Each cell of a generator is of {drawn} samples, "
        "on test images, against the limits of the zoo that it learnt from; none is left out, and "
        "nothing was chosen by these numbers. Held-out networks are the ceiling. Intervals tell of "
        "the draw of networks, not of another seed of the training."
    )


def _trial_rows(grid: Grid, cell: Callable[[Row], str]) -> list[tuple[str, ...]]:
    along, others = grid.numbers[0], grid.numbers[1:]
    points: list[dict[str, float]] = [{}]
    for axis in others:
        points = [point | {axis: value} for point in points for value in grid.values(axis)]
    rows = []
    for line in grid.line_values:
        for point in points:
            trials = [grid.row(line, point | {along: value}) for value in grid.values(along)]
            cells = [row["state"] if (of := _tested(row)) is None else cell(of) for row in trials]
            rows.append((grid.label(line), *(f"{at:,.6g}" for at in point.values()), *cells))
    return rows


def _reference_rows(grid: Grid, cell: Callable[[Row], str]) -> list[tuple[str, ...]]:
    along = grid.numbers[0]
    held = grid.held(along)
    columns = [grid.references(held | {along: value}) for value in grid.values(along)]
    # The average of all networks is called after their number.
    named = [{_title(one): one for one in column} for column in columns]
    titles = dict.fromkeys(title for column in named for title in column)
    gap = ("-",) * len(held)
    return [
        (title, *gap, *(cell(column[title]) if title in column else "-" for column in named))
        for title in titles
    ]


def _title(reference: Row) -> str:
    is_one = reference["family"] == "average" and reference["n"] == 1
    return "average of all" if is_one else reference["title"]


def _tested(row: Row) -> Row | None:
    """A trial's numbers on test images under the names that references have; None: not tested."""
    if "test_good_and_novel" not in row:
        return None
    names = ("good_and_novel", "distance_ratio", "mark")
    known = {name: row[f"test_{name}"] for name in names}
    accuracy = {name: row[name] for name in ("test_accuracy", "test_accuracy_std")}
    return {"n": row["n"]} | known | accuracy
