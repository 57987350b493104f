"""Similarity of wrong answers: of every two networks, as a matrix and against accuracy.

p-diff's similarity (arXiv 2402.13144, section 3.3): wrong answers that two networks share, over
those that either has.

Shape suffixes: S networks of a set, T of another, B of a block, M images, P networks of a picture.
"""

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from dwf.evaluation.analyses.analysis import Findings
from dwf.evaluation.analyses.material import Material
from dwf.evaluation.measure import overlaps
from dwf.evaluation.report import (
    Width,
    legend_below,
    number_cell,
    panels,
    per_line,
    scatter_networks,
)
from dwf.plain import Json
from dwf.randomness import numpy_stream

PICTURED = 60
"""Networks of each set in the picture, at most; numbers are of all."""


def wrong_answers(material: Material) -> Findings:
    """Hold every network's wrong answers against every other's."""
    wrong = {one.title: material.wrong_SM(one) for one in material.scored}
    pairs = {a: {b: _pairs(wrong[a], wrong[b], a == b) for b in wrong} for a in wrong}
    rows = [
        (a, str(len(wrong[a])), *(_cell(found) for found in of_a.values()))
        for a, of_a in pairs.items()
    ]
    words = (
        "Similarity is |both wrong| / |either wrong| of two networks' answers to the "
        f"{len(material.labels_M)} {material.split} images. The table has the mean over all pairs "
        "of a network of the row and one of the column, and in brackets the mean, over the row's "
        "networks, of the highest with any of the column's; no network is held against itself. Two "
        "networks without a mistake are alike: 1.",
        f"The picture has {PICTURED} networks of each set at most, at random; numbers are over "
        "all. Accuracy is set against the highest similarity with any training network, for every "
        "network of every set of this report.",
    )
    figures = {
        "wrong_answers.png": (
            "Similarity of wrong answers, network by network",
            partial(_picture, wrong),
        ),
        "wrong_answers_accuracy.png": (
            "Similarity of wrong answers against accuracy",
            partial(_against_accuracy, material),
        ),
    }
    columns = ("networks", "n", *wrong)
    return Findings(words, columns, rows=rows, numbers={"pairs": pairs}, figures=figures)


def _cell(found: dict[str, Json]) -> str:
    if found["n"] == 0:
        return "-"
    return f"{number_cell(found['mean'])} ({number_cell(found['highest'])})"


def _pairs(wrong_SM: np.ndarray, wrong_TM: np.ndarray, are_same: bool) -> dict[str, Json]:
    """Return over how many pairs, their mean, and the mean over S of the highest with any of T."""
    total, highest, count = 0.0, [], len(wrong_SM) * (len(wrong_TM) - are_same)
    if not count:
        return {"n": 0, "mean": None, "highest": None}
    for part, shares_BT in overlaps(wrong_SM, wrong_TM):
        if are_same:
            row_B = np.arange(len(shares_BT))
            total -= shares_BT[row_B, row_B + part.start].sum()
        total += shares_BT.sum()
        if are_same:
            shares_BT[row_B, row_B + part.start] = -1
        highest.append(shares_BT.max(1))
    return {"n": count, "mean": total / count, "highest": float(np.concatenate(highest).mean())}


def _picture(wrong: dict[str, np.ndarray], width: Width) -> Figure:
    picked = {title: _some(title, wrong_SM) for title, wrong_SM in wrong.items()}
    wrong_PM = np.concatenate(list(picked.values()))
    shares_PP = np.concatenate([shares for _, shares in overlaps(wrong_PM, wrong_PM)])
    figure, (axes,) = panels(width, height=0.78 * width.inches)
    away_PP = np.where(np.eye(len(shares_PP), dtype=bool), np.nan, shares_PP)
    image = axes.imshow(away_PP, cmap="cividis", interpolation="nearest")
    stops = np.cumsum([len(each) for each in picked.values()])
    for stop in stops[:-1]:
        axes.axhline(stop - 0.5, color="white", linewidth=1.5)
        axes.axvline(stop - 0.5, color="white", linewidth=1.5)
    middles = stops - np.array([len(each) for each in picked.values()]) / 2 - 0.5
    axes.set_yticks(middles, per_line(list(picked), longest=16))
    axes.set_xticks(middles, per_line(list(picked), longest=16), rotation=30, ha="right")
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="similarity of wrong answers", shrink=0.8)
    return figure


def _some(title: str, wrong_SM: np.ndarray) -> np.ndarray:
    """Return those of `PICTURED` networks at most, drawn at random, in their order."""
    drawn = numpy_stream(0, "picture", title).permutation(len(wrong_SM))[:PICTURED]
    return wrong_SM[np.sort(drawn)]


def _against_accuracy(material: Material, width: Width) -> Figure:
    figure, (axes,) = panels(width, height=2.9)
    scatter_networks(axes, material.report, measure="highest_overlap")
    axes.set_xlabel("highest similarity of wrong answers with a training network")
    axes.set_ylabel(f"{material.split} accuracy (%)")
    legend_below(figure, axes, width=width)
    return figure
