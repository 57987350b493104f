"""Methods and measures in one figure: every set against held-out networks, measure by measure.

Shape suffixes: R rows (sets of networks), C columns (measures).
"""

import math
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from dwf.evaluation.analyses.analysis import Findings
from dwf.evaluation.analyses.material import Material
from dwf.evaluation.report import NetworkSet, Width, panels, per_line

_MEASURES = {
    "accuracy": lambda one: one.accuracy["mean"],
    "worst accuracy": lambda one: one.accuracy["min"],
    "distance": lambda one: one.figure("distance_ratio"),
    "behaviour": lambda one: one.figure("behaviour_ratio"),
    "units": lambda one: one.figure("units_ratio"),
    "overlap": lambda one: one.figure("overlap"),
    "dispersion": lambda one: one.figure("dispersion"),
    "good and novel": lambda one: one.share,
}
"""Name of a measure -> the number that stands for a set."""


def methods(material: Material) -> Findings:
    """Set all sets' measures against those of held-out networks (or of the originals)."""
    sets = material.report.sets
    values_RC = np.array(
        [[_number(measure(one)) for measure in _MEASURES.values()] for one in sets]
    )
    aim = next((i for i, one in enumerate(sets) if one.family == "held-out"), 0)
    away_RC = values_RC - values_RC[aim]
    reach_C = np.where(np.isnan(away_RC), 0, np.abs(away_RC)).max(0)
    shade_RC = away_RC / np.where(reach_C > 0, reach_C, 1)
    words = (
        f"Colours say how far a measure of a set is from that of {sets[aim].title}: white is "
        "equal, blue above, red below, and the strongest is the furthest of the column. A "
        "generator that has learnt the distribution of networks has a white row. Numbers are those "
        "of the main table.",
    )
    numbers = {
        "aim": sets[aim].title,
        "measures": list(_MEASURES),
        "sets": {
            one.title: {"values": row.tolist(), "away": away.tolist()}
            for one, row, away in zip(sets, values_RC, away_RC, strict=True)
        },
    }
    draw = partial(_heat_map, list(sets), values_RC, shade_RC)
    return Findings(words, numbers=numbers, figures={"methods.png": ("Methods and measures", draw)})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _heat_map(
    sets: list[NetworkSet], values_RC: np.ndarray, shade_RC: np.ndarray, width: Width
) -> Figure:
    figure, (axes,) = panels(width, height=0.26 * len(sets) + 0.9)
    places, size = (2, 6) if width.is_narrow else (3, 7)
    axes.imshow(shade_RC, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for row, column in np.ndindex(values_RC.shape):
        value, strength = values_RC[row, column], abs(shade_RC[row, column])
        text = "-" if math.isnan(value) else f"{value:.{places}f}"
        colour = "white" if strength > 0.7 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    turned = 60 if width.is_narrow else 25
    axes.set_xticks(range(len(_MEASURES)), list(_MEASURES), rotation=turned, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(sets)), per_line([f"{one.title}: {one.n}" for one in sets]))
    for label, one in zip(axes.get_yticklabels(), sets, strict=True):
        label.set_fontweight("bold" if one.family == "samples" else "normal")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure
