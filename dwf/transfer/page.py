"""The figure of a fine-tuning, and its page.

Shape suffixes: L looks, N networks of an arm.
"""

from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dwf.evaluation.report import (
    STYLE,
    Record,
    Width,
    beginning,
    bullets,
    figure,
    legend_below,
    panels,
    paragraphs,
    save_figures,
    table,
    whole_page,
)
from dwf.transfer.arms import FAMILIES
from dwf.transfer.report import WORDS, TransferReport

_CAPTION = "Accuracy on validation images"
_EXPLAINED = (
    "Lines: mean over all networks of an arm. Bands: one standard deviation to each side. Each "
    "point is a look."
)


def draw_curves(report: TransferReport, folder: Path) -> dict[str, Path]:
    """Draw the figure of a report; return caption -> file."""
    with matplotlib.rc_context(STYLE):
        return save_figures({"curves.png": (_CAPTION, partial(curves, report))}, folder)


def curves(report: TransferReport, width: Width) -> Figure:
    """Return each arm's mean accuracy with a band of one standard deviation, by step."""
    drawn, (axes,) = panels(width, height=3.0)
    steps_L, seen = np.array(report.steps), dict[str, int]()
    for arm in report.arms:
        family, times = FAMILIES[arm.family], seen.get(arm.family, 0)
        seen[arm.family] = times + 1
        mean_L, std_L = 100 * arm.looks_LN.mean(1), 100 * arm.looks_LN.std(1)
        look = {"color": family.colour, "linestyle": family.line, "alpha": 0.65**times}
        axes.plot(steps_L, mean_L, marker=".", label=arm.title, **look)
        band = (steps_L, mean_L - std_L, mean_L + std_L)
        axes.fill_between(*band, color=family.colour, alpha=0.12, linewidth=0)
    if report.reach is not None:
        axes.axhline(100 * report.reach, color="#999999", linestyle=":", linewidth=1)
    axes.set_xscale("symlog", linthresh=max(1, int(steps_L[1])) if len(steps_L) > 1 else 1)
    axes.set_xlim(0, max(1, steps_L[-1]))
    axes.set_xlabel("steps")
    axes.set_ylabel("validation accuracy (%)")
    legend_below(drawn, axes, width=width)
    return drawn


def page(report: TransferReport, record: Record, *, figures: dict[str, Path]) -> str:
    """Return the page of a report.

    Args:
        report: the numbers.
        record: what made it, and where the rest lies.
        figures: caption -> PNG file.
    """
    name, *headline = beginning(report.name, report.headline)
    kinds = ["samples" if arm.family == "generated" else "" for arm in report.arms]
    body = [
        name,
        *record.top(),
        *headline,
        *paragraphs(report.notes, "soft"),
        table(report.columns, report.table, kinds=kinds),
        *(figure(caption, file, explained=_EXPLAINED) for caption, file in figures.items()),
    ]
    if report.together_table:
        title = f"Ensembles and soups of {report.config['members']}: test accuracy (%)"
        body += [f"<h2>{title}</h2>", table(report.together_columns, report.together_table)]
    body += ["<h2>How to read this</h2>", bullets(WORDS)]
    body += record.bottom(facts={"settings": report.config})
    return whole_page(f"{report.name}: fine-tuning", body)
