"""Figures of a report. Colours are Okabe and Ito's, told apart by all kinds of colour vision.

Shape suffixes: S networks of a set, C axes of the map, P points of a curve.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dwf.evaluation.measure import FAMILIES, HALF_WAY
from dwf.evaluation.report.asked import answers
from dwf.evaluation.report.drawing import (
    INK,
    STYLE,
    Draw,
    Width,
    legend_below,
    name_rows,
    panels,
    per_line,
    save_figures,
)
from dwf.evaluation.report.report import Report
from dwf.evaluation.report.sets import NetworkSet
from dwf.randomness import numpy_stream

SAMPLE_COLOURS = ("#D55E00", "#E69F00", "#A0652D", "#C23B3B")
SAMPLE_MARKERS = ("o", "^", "P", "*")
LINE_COLOURS = tuple(
    ["#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#A0652D", "#C23B3B", "#F0E442"]
)
"""Colours of lines that stand beside each other; none is that of held-out networks."""
ORIGINAL_COLOUR, HELD_OUT_COLOUR = "#808080", "#0072B2"
_CLOSE_UP_RATIO = 1.6
_EDGE_STDS = 8  # how many standard deviations of the originals a close-up reaches below their mean
_MOST_DOTS = 4000  # more are pixels in PDF and SVG, which would be slow to show
_DISCRETE = 0.5  # accuracies with fewer values than this share of their number lie on lines


def draw_figures(
    report: Report, folder: Path, *, curves: dict[str, dict[str, np.ndarray]]
) -> dict[str, Path]:
    """Draw all figures of a report; see `save_figures`.

    Args:
        report: the numbers.
        folder: where to write.
        curves: title -> name of a line -> points_P2 (x, y); what `training_curves` draws.

    Returns:
        Caption -> PNG file, in reading order.
    """
    figures: dict[str, tuple[str, Draw]] = {
        "novelty.png": ("Novelty against accuracy", partial(novelty_against_accuracy, report)),
        "accuracy.png": ("Accuracies of all networks", partial(accuracy_distributions, report)),
        "map.png": ("Map of originals and samples", partial(weight_map, report)),
    }
    if report.asked.get("numbers"):
        figures["asked.png"] = ("Asked for and drawn", partial(asked_and_drawn, report))
    if curves:
        figures["curves.png"] = ("Training curves", partial(training_curves, curves))
    with matplotlib.rc_context(STYLE):
        return save_figures(figures, folder)


def accuracy_distributions(report: Report, width: Width) -> Figure:
    """Every network's accuracy, a row for each set: the whole range, and a close-up."""
    height = (0.29 if width.is_narrow else 0.21) * len(report.sets) + 0.8
    figure, (whole, close) = panels(width, 2, height=height, share_y=True)
    as_pixels = _are_many(report.sets)
    for row, one in enumerate(report.sets):
        accuracy_S = 100 * one.accuracy_S
        jitter_S = numpy_stream(0, "jitter", row).uniform(-0.28, 0.28, len(accuracy_S))
        look = {"s": 4, "color": look_of(report, one)[0], "alpha": 0.5, "linewidths": 0}
        for axes in (whole, close):
            axes.scatter(accuracy_S, row + jitter_S, rasterized=as_pixels, **look)
            axes.vlines(np.median(accuracy_S), row - 0.36, row + 0.36, color=INK, linewidth=1.3)
    for axes, title in ((whole, "all"), (close, "close-up at the originals")):
        axes.axvline(100 * report.limits["accuracy"], color="#999999", linestyle=":", linewidth=1)
        axes.set_title(title)
        axes.set_xlabel(f"{report.config['split']} accuracy (%)")
    low, high = _close_up(report)
    close.set_xlim(low, high)
    name_rows((whole, close), [f"{one.title}: {one.n}" for one in report.sets], width=width)
    return figure


def novelty_against_accuracy(report: Report, width: Width) -> Figure:
    """Each network's distance ratio against its accuracy, with the region that is wanted."""
    figure, (whole, close) = panels(width, 2, height=2.7)
    limit = report.limits["distance"]
    ratio = None if limit is None else limit / report.limits["unit"]
    for axes in (whole, close):
        scatter_networks(axes, report, measure="distance_ratio")
        axes.set_xlabel("distance to the nearest training network\n(zoo's own median = 1)")
        axes.set_ylabel(f"{report.config['split']} accuracy (%)")
        _mark_region(axes, ratio, 100 * report.limits["accuracy"])
    whole.set_title("all")
    close.set_title("close-up at the originals")
    low, high = _close_up(report)
    close.set_ylim(low, high)
    close.set_xlim(-0.05, _CLOSE_UP_RATIO)
    legend_below(figure, whole, width=width)
    return figure


def scatter_networks(axes: Axes, report: Report, *, measure: str) -> None:
    """Put each network's accuracy (%) against one of its measures, with a label for each look.

    Accuracies that lie on lines, as those on few images, are moved by less than half a line.
    Originals and held-out networks are drawn last, on top.
    """
    seen: set[str] = set()
    step, as_pixels = accuracy_step(report.sets), _are_many(report.sets)
    for row, one in enumerate(_trained_last(report.sets)):
        colour, marker, label = look_of(report, one)
        jitter_S = numpy_stream(0, "jitter", measure, row).uniform(-0.4, 0.4, one.n)
        axes.scatter(
            one.values(measure),
            100 * (one.accuracy_S + step * jitter_S),
            s=9,
            color=colour,
            marker=marker,
            alpha=0.6,
            linewidths=0.7 if marker in "x+" else 0,
            label=None if label in seen else label,
            rasterized=as_pixels,
        )
        seen.add(label)


def accuracy_step(sets: Sequence[NetworkSet]) -> float:
    """Return how far apart the lines are that accuracies lie on; 0 where they lie on none.

    They lie on lines where the originals have fewer values than half their number: then the step
    is the least difference of two accuracies of a report.

    Args:
        sets: of a report.
    """
    (originals,) = [one for one in sets if one.family == "originals"]
    own_S = originals.accuracy_S
    if len(np.unique(own_S)) >= _DISCRETE * len(own_S):
        return 0.0
    every = np.unique(np.concatenate([one.accuracy_S for one in sets]).round(9))
    every = every[np.isfinite(every)]
    return float(np.diff(every).min()) if len(every) > 1 else 0.0


def weight_map(report: Report, width: Width) -> Figure:
    """Originals, held-out networks and samples on the training networks' first two axes."""
    figure, (axes,) = panels(width, height=3.2 if width.is_narrow else 4.2)
    for one in _trained_last(report.sets):
        if one.is_baseline:
            continue
        colour, marker, label = look_of(report, one)
        places_SC = np.array(one.networks["map"], float)
        look = {"color": colour, "marker": marker, "alpha": 0.6, "linewidths": 0, "s": 10}
        axes.scatter(*places_SC.T, label=label, rasterized=_are_many(report.sets), **look)
    shares = [f"{100 * share:.1f} % of their variance" for share in report.map_share]
    axes.set_xlabel(f"axis 1 of the originals ({shares[0]})")
    axes.set_ylabel(f"axis 2 ({shares[1]})")
    legend_below(figure, axes, width=width)
    return figure


def asked_and_drawn(report: Report, width: Width) -> Figure:
    """One panel for each condition that is a number: what each network was asked for and is."""
    rows = {(row["source"], row["condition"]): row for row in report.asked["numbers"]}
    found = [each for each in answers(report.sets) if (each.source, each.condition) in rows]
    names = list(dict.fromkeys(each.condition for each in found))
    figure, each_axes = panels(width, len(names), height=2.9)
    for axes, name in zip(each_axes, names, strict=True):
        colours = (*SAMPLE_COLOURS, ORIGINAL_COLOUR) * len(found)
        of_name = [each for each in found if each.condition == name]
        for colour, each in zip(colours, of_name, strict=False):
            row = rows[each.source, name]
            slope = "" if row["slope"] is None else f": slope {row['slope']:.2f}"
            label = f"{each.source}{slope}"
            axes.scatter(each.asked, each.drawn, s=8, color=colour, alpha=0.5, label=label)
        axes.axline((each.asked[0], each.asked[0]), slope=1, color="#999999", linestyle=":")
        axes.set_xlabel(f"{name} asked for")
        axes.set_ylabel(f"{name} drawn")
        axes.legend(loc="best")
    return figure


def training_curves(curves: dict[str, dict[str, np.ndarray]], width: Width) -> Figure:
    """One panel for each title, one line for each name, points_P2 (x, y)."""
    figure, each_axes = panels(width, len(curves), height=2.3)
    for axes, (title, lines) in zip(each_axes, curves.items(), strict=True):
        for colour, (name, points_P2) in zip(
            (HELD_OUT_COLOUR, *SAMPLE_COLOURS) * 8, lines.items(), strict=False
        ):
            look = {"marker": "o"} if len(points_P2) == 1 else {}  # one point makes no line
            axes.plot(*points_P2.T, label=name.replace("_", " "), color=colour, **look)
        values = np.concatenate([points_P2[:, 1] for points_P2 in lines.values()])
        if values.min() > 0 and values.max() > 20 * values.min():
            axes.set_yscale("log")
        (shown,) = per_line([title], longest=44)
        axes.set_title(shown)
        axes.set_xlabel("epoch" if title.startswith("zoo") else "step")
        axes.legend(loc="best")
    return figure


def look_of(report: Report, one: NetworkSet) -> tuple[str, str, str]:
    """Colour, marker and label of a set."""
    if one.family == "originals":
        return ORIGINAL_COLOUR, "o", "originals (training)"
    if one.family == "held-out":
        return HELD_OUT_COLOUR, "o", "held-out networks"
    if one.family == "samples":
        index = report.of("samples").index(one)
        label = one.title if one.mark == "-" else f"{one.title}: {one.mark}"
        return SAMPLE_COLOURS[index % 4], SAMPLE_MARKERS[index % 4], label
    family = FAMILIES[one.family]
    return family.colour, family.marker, family.label


def _trained_last(sets: Sequence[NetworkSet]) -> list[NetworkSet]:
    """Drawn last is seen best: baselines, samples, originals, held-out networks."""
    order: dict[str, int] = {"samples": 1, "originals": 2, "held-out": 3}
    return sorted(sets, key=lambda one: order.get(one.family, 0))


def _are_many(sets: Sequence[NetworkSet]) -> bool:
    """Whether dots are drawn as pixels."""
    return sum(one.n for one in sets) > _MOST_DOTS


def _mark_region(axes: Axes, distance: float | None, accuracy: float) -> None:
    axes.axhline(accuracy, color="#999999", linestyle=":", linewidth=1)
    right = max(axes.get_xlim()[1], _CLOSE_UP_RATIO)
    if distance is not None:
        axes.axvline(distance, color="#999999", linestyle=":", linewidth=1)
        label = "good and distant enough"
        corner = ([distance, right], accuracy, 100)
        axes.fill_between(*corner, color="#F0E442", alpha=0.25, linewidth=0, label=label, zorder=0)
    near = "too near: copies (or averages)"
    axes.axvspan(-0.05, HALF_WAY, color="#999999", alpha=0.12, linewidth=0, label=near, zorder=0)
    axes.set_xlim(-0.05, right)


def _close_up(report: Report) -> tuple[float, float]:
    """A range of accuracies (%) in which the originals' spread can be seen."""
    accuracy_S = 100 * report.of("originals")[0].accuracy_S
    deviation = max(float(accuracy_S.std()), 0.05)
    low = accuracy_S.mean() - _EDGE_STDS * deviation
    return low, min(100.2, accuracy_S.max() + 2 * deviation)


def draw_novelty(axes: Axes, report: Report) -> None:
    """Draw one panel of `novelty_against_accuracy`: all networks, with labels and a legend."""
    limit = report.limits["distance"]
    scatter_networks(axes, report, measure="distance_ratio")
    axes.set_xlabel("distance to the nearest training network\n(zoo's own median = 1)")
    axes.set_ylabel(f"{report.config['split']} accuracy (%)")
    ratio = None if limit is None else limit / report.limits["unit"]
    _mark_region(axes, ratio, 100 * report.limits["accuracy"])
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
