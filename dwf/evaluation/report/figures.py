"""Figures of a report. Colours are Okabe and Ito's, told apart by all kinds of colour vision.

Shape suffixes: S networks of a set, C axes of the map, P points of a curve.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dwf.evaluation.measure import FAMILIES, HALF_WAY
from dwf.evaluation.report.asked import answers
from dwf.evaluation.report.report import Report
from dwf.evaluation.report.sets import NetworkSet
from dwf.randomness import numpy_stream
from dwf.run_folder import replacing

STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "savefig.dpi": 110,
}
SAMPLE_COLOURS = ("#D55E00", "#E69F00", "#8B4513", "#B22222")
SAMPLE_MARKERS = ("o", "^", "P", "*")
ORIGINAL_COLOUR, HELD_OUT_COLOUR = "#777777", "#0072B2"
_CLOSE_UP_RATIO = 1.6
_EDGE_STDS = 8  # how many standard deviations of the originals a close-up reaches below their mean


def draw_figures(
    report: Report, folder: Path, *, curves: dict[str, dict[str, np.ndarray]]
) -> dict[str, Path]:
    """Draw all figures of a report as PNG files.

    Args:
        report: the numbers.
        folder: where to write.
        curves: title -> name of a line -> points_P2 (x, y); what `training_curves` draws.

    Returns:
        Caption -> file, in reading order.
    """
    with matplotlib.rc_context(STYLE):
        figures = {
            "novelty.png": ("Novelty against accuracy", novelty_against_accuracy(report)),
            "accuracy.png": ("Accuracies of all networks", accuracy_distributions(report)),
            "map.png": ("Map of originals and samples", weight_map(report)),
        }
        if report.asked.get("numbers"):
            figures["asked.png"] = ("Asked for and drawn", asked_and_drawn(report))
        if curves:
            figures["curves.png"] = ("Training curves", training_curves(curves))
        return save_figures(figures, folder)


def save_figures(figures: dict[str, tuple[str, Figure]], folder: Path) -> dict[str, Path]:
    """Write figures, name of a PNG file -> (caption, figure); return caption -> file."""
    drawn: dict[str, Path] = {}
    for file, (caption, figure) in figures.items():
        with replacing(folder / file) as partial:
            # No software version in the file: equal reports are equal files.
            figure.savefig(partial, format="png", bbox_inches="tight", metadata={"Software": None})
        drawn[caption] = folder / file
    return drawn


def accuracy_distributions(report: Report) -> Figure:
    """Every network's accuracy, a row for each set: the whole range, and a close-up."""
    height = 0.32 * len(report.sets) + 1.2
    figure = Figure(figsize=(11, height))
    whole, close = figure.subplots(1, 2, sharey=True)
    for row, one in enumerate(report.sets):
        accuracy_S = 100 * one.accuracy_S
        jitter_S = numpy_stream(0, "jitter", row).uniform(-0.28, 0.28, len(accuracy_S))
        colour = look_of(report, one)[0]
        for axes in (whole, close):
            axes.scatter(accuracy_S, row + jitter_S, s=7, color=colour, alpha=0.45, linewidths=0)
            axes.vlines(np.median(accuracy_S), row - 0.36, row + 0.36, color="black", linewidth=1.6)
    for axes, title in ((whole, "all"), (close, "close-up at the originals")):
        axes.axvline(100 * report.limits["accuracy"], color="#999999", linestyle=":", linewidth=1)
        axes.set_title(title)
        axes.set_xlabel(f"{report.config['split']} accuracy (%)")
    low, high = _close_up(report)
    close.set_xlim(low, high)
    whole.set_yticks(range(len(report.sets)), [f"{one.title} ({one.n})" for one in report.sets])
    whole.invert_yaxis()
    figure.text(
        0.01,
        -0.02,
        "Bar: median. Dotted line: good enough (mean of originals - 2 std).",
        fontsize=9,
    )
    figure.tight_layout()
    return figure


def novelty_against_accuracy(report: Report) -> Figure:
    """Each network's distance ratio against its accuracy, with the region that is wanted."""
    figure = Figure(figsize=(11, 4.4))
    whole, close = figure.subplots(1, 2)
    limit = report.limits["distance"]
    ratio = None if limit is None else limit / report.limits["unit"]
    for axes in (whole, close):
        scatter_networks(axes, report, measure="distance_ratio")
        axes.set_xlabel("distance to the nearest training network\n(zoo's own median = 1)")
        _mark_region(axes, ratio, 100 * report.limits["accuracy"])
    whole.set_ylabel(f"{report.config['split']} accuracy (%)")
    whole.set_title("all")
    close.set_title("close-up at the originals")
    low, high = _close_up(report)
    close.set_ylim(low, high)
    close.set_xlim(-0.05, _CLOSE_UP_RATIO)
    handles, labels = whole.get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.6)
    figure.tight_layout()
    return figure


def scatter_networks(axes: Axes, report: Report, *, measure: str) -> None:
    """Put each network's accuracy (%) against one of its measures, with a label for each look."""
    seen: set[str] = set()
    for one in _samples_last(report.sets):
        colour, marker, label = look_of(report, one)
        axes.scatter(
            one.values(measure),
            100 * one.accuracy_S,
            s=16,
            color=colour,
            marker=marker,
            alpha=0.6,
            linewidths=0.8 if marker == "x" else 0,
            label=None if label in seen else label,
        )
        seen.add(label)


def weight_map(report: Report) -> Figure:
    """Originals, held-out networks and samples on the training networks' first two axes."""
    figure = Figure(figsize=(7, 5.2))
    axes = figure.subplots()
    for one in _samples_last(report.sets):
        if one.is_baseline:
            continue
        colour, marker, label = look_of(report, one)
        places_SC = np.array(one.networks["map"], float)
        axes.scatter(
            *places_SC.T, s=16, color=colour, marker=marker, alpha=0.6, linewidths=0, label=label
        )
    for axis, name in enumerate(("x", "y")):
        share = report.map_share[axis]
        getattr(axes, f"set_{name}label")(
            f"axis {axis + 1} of the originals ({100 * share:.1f} % of their variance)"
        )
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.6)
    return figure


def asked_and_drawn(report: Report) -> Figure:
    """One panel for each condition that is a number: what each network was asked for and is."""
    rows = {(row["source"], row["condition"]): row for row in report.asked["numbers"]}
    found = [each for each in answers(report.sets) if (each.source, each.condition) in rows]
    names = list(dict.fromkeys(each.condition for each in found))
    figure = Figure(figsize=(4.8 * len(names), 4.2))
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        colours = (*SAMPLE_COLOURS, ORIGINAL_COLOUR) * len(found)
        of_name = [each for each in found if each.condition == name]
        for colour, each in zip(colours, of_name, strict=False):
            row = rows[each.source, name]
            slope = "" if row["slope"] is None else f": slope {row['slope']:.2f}"
            label = f"{each.source}{slope}"
            axes.scatter(each.asked, each.drawn, s=14, color=colour, alpha=0.5, label=label)
        axes.axline((each.asked[0], each.asked[0]), slope=1, color="#999999", linestyle=":")
        axes.set_xlabel(f"{name} asked for")
        axes.set_ylabel(f"{name} drawn")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figure.tight_layout()
    return figure


def training_curves(curves: dict[str, dict[str, np.ndarray]]) -> Figure:
    """One panel for each title, one line for each name, points_P2 (x, y)."""
    figure = Figure(figsize=(5.2 * len(curves), 3.8))
    panels = figure.subplots(1, len(curves), squeeze=False)
    for axes, (title, lines) in zip(panels[0], curves.items(), strict=True):
        for colour, (name, points_P2) in zip(
            (HELD_OUT_COLOUR, *SAMPLE_COLOURS) * 8, lines.items(), strict=False
        ):
            look = {"marker": "o"} if len(points_P2) == 1 else {}  # one point makes no line
            axes.plot(*points_P2.T, label=name, color=colour, linewidth=1.6, **look)
        values = np.concatenate([points_P2[:, 1] for points_P2 in lines.values()])
        if values.min() > 0 and values.max() > 20 * values.min():
            axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel("epoch" if title.startswith("zoo") else "step")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    figure.tight_layout()
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


def _samples_last(sets: Sequence[NetworkSet]) -> list[NetworkSet]:
    """Drawn last is seen best: baselines, originals, held-out networks, samples."""
    order: dict[str, int] = {"originals": 1, "held-out": 2, "samples": 3}
    return sorted(sets, key=lambda one: order.get(one.family, 0))


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
