"""Similarity against k, the number of training networks that a generator learnt from.

p-diff's ablation over k (arXiv 2402.13144, section 4.1): from a few checkpoints a generator can
only return these. Where it learns more, its networks come further from the nearest.
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from dwf.evaluation.analyses.analysis import Findings
from dwf.evaluation.analyses.material import Material
from dwf.evaluation.report import (
    SAMPLE_COLOURS,
    NetworkSet,
    Width,
    accuracy_cell,
    number_cell,
    panels,
    per_line,
)
from dwf.plain import Json

_SHOWN = {
    "highest_overlap": "highest similarity of wrong answers",
    "distance_ratio": "distance to the nearest (ratio)",
    "behaviour_ratio": "distance in behaviour (ratio)",
}


def checkpoints(material: Material) -> Findings:
    """Set the samples of generators side by side by how many networks these learnt from."""
    samples = material.report.of("samples")
    if not samples:
        return Findings(("There are no samples: give some with --samples.",))
    total = len(material.yardstick.training)
    found = sorted(((one.summary.get("learnt_from", total), one) for one in samples), key=_order)
    words = (
        "k is the number of training networks that a generator learnt from; its samples are held "
        "against these alone, and ratios are to these networks' own medians.",
    )
    if len({k for k, _ in found}) == 1:
        words += (
            f"All generators learnt from k = {found[0][0]}: to see an effect of k, fit others with "
            "--networks (or --rows, of one network's steps) and give their samples, too.",
        )
    columns = ("networks", "k", "n", f"{material.split} accuracy (%)")
    columns += ("similarity, mean", "highest", "distance", "behaviour", "good and novel")
    rows = [
        (
            one.title,
            str(k),
            str(one.n),
            accuracy_cell(one.accuracy),
            *(number_cell(one.figure(measure)) for measure in ("overlap", *_SHOWN)),
            f"{100 * one.share:.1f} %",
        )
        for k, one in found
    ]
    numbers: dict[str, Json] = {
        one.title: {"k": k} | {measure: one.figure(measure) for measure in ("overlap", *_SHOWN)}
        for k, one in found
    }
    figures = {"checkpoints.png": ("Similarity against k", partial(_violins, found))}
    return Findings(words, columns, rows=rows, numbers=numbers, figures=figures)


def _order(found: tuple[int, NetworkSet]) -> tuple[int, str]:
    return found[0], found[1].title


def _violins(found: list[tuple[int, NetworkSet]], width: Width) -> Figure:
    figure, each_axes = panels(width, len(_SHOWN), height=2.4, across=3)
    titles = len({k for k, _ in found}) < len(found)
    names = [f"{k}\n{one.title}" if titles else str(k) for k, one in found]
    for axes, (measure, words) in zip(each_axes, _SHOWN.items(), strict=True):
        for place, (_, one) in enumerate(found):
            values_S = one.values(measure)
            values_S = values_S[np.isfinite(values_S)]
            if len(values_S) > 1 and np.ptp(values_S) > 0:
                drawn = axes.violinplot(values_S, [place], widths=0.8, showextrema=False)
                drawn["bodies"][0].set(facecolor=SAMPLE_COLOURS[0], alpha=0.35)
            if len(values_S):
                axes.plot([place], [np.median(values_S)], "o", color=SAMPLE_COLOURS[0])
        axes.set_title(per_line([words])[0])
        axes.set_xticks(range(len(found)), names, rotation=30 if titles else 0)
        axes.set_xlabel("k, networks learnt from\n(dot: median)")
        axes.set_ylim(bottom=0)
    return figure
