"""Pictures of a report: predicted against true, errors, rows side by side, calibration, attention.

Shape suffixes: N networks, P properties, R rows, C bins.
"""

import itertools
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dwf.evaluation.report import (
    HELD_OUT_COLOUR,
    INK,
    LINE_COLOURS,
    ORIGINAL_COLOUR,
    SAMPLE_COLOURS,
    STYLE,
    Draw,
    Width,
    name_rows,
    number_cell,
    panels,
    per_line,
    save_figures,
)
from dwf.predictors.report.report import Report, Row
from dwf.predictors.told import Told, Truth

MANY = 2000
"""From so many networks on a panel has hexagons, not dots."""
_MOST_DOTS = 500  # more on a panel are pixels, whose colours are those of a light page
_PANELS = 6
_BINS = 10
EXPLAINED = {
    "Rows side by side": "Tau of each row with its 95 % interval over draws of test networks; the "
    "dotted line is the ceiling of ties and label noise. Blue: shown weights; orange: function "
    "access; grey: baselines.",
    "Rows and properties": "Tau as a share of the ceiling.",
    "Errors": "Predicted less true, in standard deviations of the property over the test networks: "
    "median, middle half, and the range from 5 to 95 %.",
    "Correlation of properties": "Rank correlations (Spearman) over the test networks, as measured "
    "and as the row tells them.",
    "Calibration": "Test networks in ten bins of equal number by what is predicted: mean predicted "
    "against mean true value, with 1.96 standard errors. On the dotted line a prediction is right "
    "on the mean.",
    "Attention by layer": "Share of the pooled attention that falls on each layer's tokens.",
}
_DOTS = (
    "Each dot (or hexagon, of many) is a test network, under the first seed; what is told further "
    "out than the true values are wide lies on the edge. The best baseline first, then the rows "
    "with the highest tau. Blue: shown weights; orange: function access; grey: baselines."
)


def draw(report: Report, folder: Path, *, truth: Truth, told: Sequence[Told]) -> dict[str, Path]:
    """Write all pictures, see `save_figures`; return caption -> PNG file, in reading order.

    Args:
        report: the figures.
        folder: where to write.
        truth: the test networks.
        told: what the rows said of them; of each row that of the first seed is drawn.
    """
    first: dict[str, Told] = {}
    for one in told:
        first.setdefault(one.row, one)
    with matplotlib.rc_context(STYLE):
        made: dict[str, tuple[str, Draw]] = {
            "rows.png": ("Rows side by side", partial(side_by_side, report)),
            "heat.png": ("Rows and properties", partial(heat, report)),
        }
        for p, name in enumerate(report.properties):
            file = f"predicted-{p}-{_file_name(name)}.png"
            drawn = partial(predicted, report=report, truth=truth, told=first, name=name)
            made[file] = (f"Predicted against true: {name}", drawn)
        drawn = partial(errors, report=report, truth=truth, told=first)
        made["errors.png"] = ("Errors", drawn)
        drawn = partial(calibration, report=report, truth=truth, told=first)
        made["calibration.png"] = ("Calibration", drawn)
        if len(report.properties) > 1:
            drawn = partial(correlations, report=report, truth=truth, told=first)
            made["correlation.png"] = ("Correlation of properties", drawn)
        if any("attention" in row.facts for row in report.rows):
            made["attention.png"] = ("Attention by layer", partial(attention, report.rows))
        return save_figures(made, folder)


def explained(caption: str) -> str:
    """Return what a picture shows."""
    return _DOTS if caption.startswith("Predicted against true") else EXPLAINED[caption]


def best_rows(report: Report, name: str, *, most: int = _PANELS) -> list[Row]:
    """Return the best baseline of a property, then the other rows of highest tau."""
    entries = {row.name: report.entry(row.name, name) for row in report.rows}
    tau = {row: -2.0 if e is None or e.tau is None else e.tau for row, e in entries.items()}
    ordered = sorted(report.rows, key=lambda row: -tau[row.name])
    own = [row for row in ordered if not row.is_baseline]
    others = [row for row in ordered if row.is_baseline]
    return (others[:1] + own)[:most]


def predicted(
    width: Width, report: Report, *, truth: Truth, told: dict[str, Told], name: str
) -> Figure:
    """One panel for each of the best rows: each network's predicted against its true value."""
    rows, p = best_rows(report, name), truth.properties.index(name)
    figure, each_axes = panels(width, len(rows), height=2.3, across=3)
    for axes, row in zip(each_axes, rows, strict=False):
        told_N = told[row.name].values_NP[:, p]
        _dots(axes, truth.values_NP[:, p], told_N, colour=_colour(row), name=name)
        entry = report.entry(row.name, name)
        axes.set_title(f"{row.label}\ntau {number_cell(entry and entry.tau)}")
    return figure


def draw_predictions(
    folder: Path, true_N: np.ndarray, *, told: dict[str, np.ndarray], name: str
) -> Path:
    """Draw what rows said of a zoo's networks against what was measured; return the PNG file.

    Args:
        folder: where to write.
        true_N: measured values.
        told: title of a panel -> predictions, [N]; the first six are drawn.
        name: name of the property.
    """

    def drawn(width: Width) -> Figure:
        shown = list(told.items())[:_PANELS]
        figure, each_axes = panels(width, len(shown), height=2.3, across=3)
        for axes, (title, told_N) in zip(each_axes, shown, strict=False):
            _dots(axes, true_N, told_N, colour=SAMPLE_COLOURS[0], name=name)
            axes.set_title(title)
        return figure

    with matplotlib.rc_context(STYLE):
        file = f"{_file_name(name)}.png"
        return save_figures({file: (name, drawn)}, folder)[name]


def _file_name(name: str) -> str:
    return re.sub("[^a-zA-Z0-9]+", "-", name)


def _dots(axes: Axes, true_N: np.ndarray, told_N: np.ndarray, *, colour: str, name: str) -> None:
    """Draw predicted against true values; far ones lie on the edge, no number nowhere."""
    is_told_N = np.isfinite(told_N)
    true_N, told_N = true_N[is_told_N], told_N[is_told_N]
    wide = np.ptp(true_N) or 1.0
    told_N = np.clip(told_N, true_N.min() - wide, true_N.max() + wide)
    if len(true_N) >= MANY:
        look = {"gridsize": 40, "bins": "log", "cmap": "viridis", "mincnt": 1, "linewidths": 0}
        axes.hexbin(true_N, told_N, **look)
    else:
        look = {"s": 7, "alpha": 0.7, "linewidths": 0, "rasterized": len(true_N) > _MOST_DOTS}
        axes.scatter(true_N, told_N, color=colour, **look)
    axes.axline((true_N.mean(), true_N.mean()), slope=1, color=INK, linestyle=":", linewidth=1)
    axes.set_xlabel(f"{name}, true")
    axes.set_ylabel("predicted")


def errors(width: Width, report: Report, *, truth: Truth, told: dict[str, Told]) -> Figure:
    """One panel for each property: the distribution of each row's errors."""
    names, rows = report.properties, report.rows
    height = 0.22 * len(rows) + 0.8
    figure, each_axes = panels(width, len(names), height=height, across=3, share_y=True)
    for p, (axes, name) in enumerate(zip(each_axes, names, strict=True)):
        unit = truth.values_NP[:, p].std() or 1.0
        each = [(told[row.name].values_NP - truth.values_NP)[:, p] / unit for row in rows]
        boxes = axes.boxplot(
            each,
            orientation="horizontal",
            positions=range(len(rows)),
            whis=(5, 95),  # codespell:ignore whis
            showfliers=False,
            patch_artist=True,
            medianprops={"color": INK},
        )
        for box, row in zip(boxes["boxes"], rows, strict=True):
            box.set(facecolor=_colour(row), alpha=0.6)
        axes.axvline(0, color=INK, linestyle=":", linewidth=1)
        axes.set_title(name)
        axes.set_xlabel("error (std)")
    _name_rows(each_axes, rows, width)
    return figure


def side_by_side(report: Report, width: Width) -> Figure:
    """One panel for each property: tau of each row as a bar, with interval and ceiling."""
    names, rows = report.properties, report.rows
    height = 0.22 * len(rows) + 0.8
    figure, each_axes = panels(width, len(names), height=height, across=3, share_y=True)
    for axes, name in zip(each_axes, names, strict=True):
        for place, row in enumerate(rows):
            entry = report.entry(row.name, name)
            if entry is None or entry.tau is None:
                continue
            tau = entry.scores["tau"]
            axes.barh(place, tau.mean, color=_colour(row), alpha=0.8)
            if tau.low is not None:
                axes.plot([tau.low, tau.high], [place, place], color=INK, linewidth=1.2)
        most = report.target(name).ceiling.tau
        if most is not None:
            axes.axvline(most, color=INK, linestyle=":", linewidth=1.2)
        axes.set_title(name)
        axes.set_xlabel("tau")
    _name_rows(each_axes, rows, width)
    return figure


def heat(report: Report, width: Width) -> Figure:
    """A cell for each row and property: tau over the ceiling."""
    entries = [[report.entry(row.name, name) for name in report.properties] for row in report.rows]
    shares = [[None if e is None else report.over_ceiling(e) for e in row] for row in entries]
    labels = [row.label for row in report.rows]
    return heat_map(np.array(shares, float), labels, columns=report.properties, width=width)


def heat_map(
    values_RC: np.ndarray,
    rows: Sequence[str],
    *,
    columns: Sequence[str],
    width: Width,
    title: str = "",
) -> Figure:
    """A matrix of shares as colours with numbers; NaN stays empty."""
    figure, (axes,) = panels(width, height=0.26 * len(rows) + 1.3)
    _matrix(axes, values_RC, limits=(0, 1), colours="viridis")
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(rows)), per_line(rows))
    axes.set_title(title)
    return figure


def _matrix(
    axes: Axes, values_RC: np.ndarray, *, limits: tuple[float, float], colours: str
) -> None:
    low, high = limits
    axes.imshow(values_RC, vmin=low, vmax=high, cmap=colours, aspect="auto")
    for (r, c), value in np.ndenumerate(values_RC):
        if np.isfinite(value):
            place = (value - low) / (high - low)
            is_dark = place < 0.6 if colours == "viridis" else not 0.2 < place < 0.8
            colour = "white" if is_dark else "black"
            axes.text(c, r, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=6.5)


def correlations(width: Width, report: Report, *, truth: Truth, told: dict[str, Told]) -> Figure:
    """Rank correlations of the properties: true ones, and those that the best row tells."""
    rows = best_rows(report, report.properties[0])
    row = next((each for each in rows if not each.is_baseline), rows[0])
    shown = {"true": truth.values_NP, f"told by {row.label}": told[row.name].values_NP}
    count = len(report.properties)
    figure, each_axes = panels(width, len(shown), height=0.3 * count + 1.5)
    for axes, (title, values_NP) in zip(each_axes, shown.items(), strict=True):
        limits = (-1, 1)
        _matrix(axes, rank_correlation(values_NP), limits=limits, colours="RdBu_r")
        axes.set_xticks(range(count), report.properties, rotation=35, ha="right")
        axes.set_yticks(range(count), report.properties)
        axes.set_title(title)
    return figure


def rank_correlation(values_NP: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each two properties, [P, P]; NaN of one that is constant."""
    from scipy.stats import rankdata

    ranks_NP = rankdata(values_NP, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.corrcoef(ranks_NP, rowvar=False)


def calibration(width: Width, report: Report, *, truth: Truth, told: dict[str, Told]) -> Figure:
    """One panel for each property: mean true value of networks that are told alike."""
    figure, each_axes = panels(width, len(report.properties), height=2.4, across=3)
    own = [row.name for row in report.rows if not row.is_baseline]
    colours = dict(zip(own, itertools.cycle((HELD_OUT_COLOUR, *LINE_COLOURS)), strict=False))
    for p, (axes, name) in enumerate(zip(each_axes, report.properties, strict=False)):
        for row in best_rows(report, name, most=4):
            said_N = told[row.name].values_NP[:, p]
            said_C, true_C, error_C = binned(said_N, truth.values_NP[:, p])
            colour = ORIGINAL_COLOUR if row.is_baseline else colours[row.name]
            look = {"fmt": "o-", "color": colour, "markersize": 3, "linewidth": 0.9}
            axes.errorbar(said_C, true_C, yerr=1.96 * error_C, **look, label=row.label)
        middle = float(truth.values_NP[:, p].mean())
        axes.axline((middle, middle), slope=1, color=INK, linestyle=":", linewidth=1)
        axes.set_title(name)
        axes.set_xlabel("mean predicted")
        axes.set_ylabel("mean true")
        axes.legend(fontsize=7)
    return figure


def binned(
    told_N: np.ndarray, truth_N: np.ndarray, *, bins: int = _BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of bins of equal number, by what is told: mean told, mean true, its standard error.

    Networks that are told the same stay together, so there may be fewer bins.
    """
    cuts_C = np.quantile(told_N, np.arange(1, bins) / bins)
    bin_N = np.searchsorted(np.unique(cuts_C), told_N, side="left")
    said, true, error = [], [], []
    for number in np.unique(bin_N):
        mine_N = truth_N[bin_N == number]
        said.append(told_N[bin_N == number].mean())
        true.append(mine_N.mean())
        error.append(mine_N.std(ddof=1) / np.sqrt(len(mine_N)) if len(mine_N) > 1 else 0.0)
    return np.array(said), np.array(true), np.array(error)


def attention(rows: Sequence[Row], width: Width) -> Figure:
    """One panel for each row that pools by attention: the share of each layer."""
    some = [row for row in rows if "attention" in row.facts]
    figure, each_axes = panels(width, len(some), height=2.4)
    for axes, row in zip(each_axes, some, strict=False):
        shares = row.facts["attention"]
        axes.barh(range(len(shares)), list(shares.values()), color=SAMPLE_COLOURS[0], alpha=0.8)
        axes.set_yticks(range(len(shares)), list(shares))
        axes.invert_yaxis()
        axes.set_title(row.label)
        axes.set_xlabel("share of attention")
    return figure


def _name_rows(each_axes: Sequence[Axes], rows: Sequence[Row], width: Width) -> None:
    for axes in each_axes:
        if axes.get_subplotspec().is_first_col():
            name_rows([axes], [row.label for row in rows], width=width)


def _colour(row: Row) -> str:
    if row.is_baseline:
        return ORIGINAL_COLOUR
    return HELD_OUT_COLOUR if row.access == "weights" else SAMPLE_COLOURS[0]
