"""Classes that networks answer: confusion, counts, confidence, and networks that answer one class.

Shape suffixes: S networks of a set, B of a block, M images, K classes, A answers (K classes, and
none), H bins of a histogram.
"""

import math
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from dwf.evaluation.analyses.analysis import Findings
from dwf.evaluation.analyses.material import Material, Scored
from dwf.evaluation.report import (
    INK,
    Width,
    legend_below,
    number_cell,
    panels,
    share_cell,
    statistics,
)
from dwf.plain import Json

_BLOCK_NUMBERS = 2**24
_BINS = np.linspace(0, 1, 21)
_PANELS = 4  # of a row of figures
_MOST_NAMED = 12  # classes whose axis has a number at each


def classes(material: Material) -> Findings:
    """Count what all networks of each set answer to images of each class."""
    labels_M, num = material.labels_M, material.num_classes
    true_K = np.bincount(labels_M, minlength=num) / len(labels_M)
    counts = {
        one.title: confusion(one.answers_SM, labels_M, num_classes=num) for one in material.scored
    }
    numbers = {
        one.title: _numbers(one, counts[one.title], labels_M, true_K) for one in material.scored
    }
    words = (
        f"Answers of all networks of each set to the {len(labels_M)} {material.split} images, "
        "together. Confidence is the softmax of the answer's logit, mean over answers. A network "
        "is biased to a class if its answers of that class exceed the class's images by more than "
        "half of all other images; published analyses warn of one above half of all answers, "
        "which is `above half`.",
        *(_warning(title, found) for title, found in numbers.items() if found["biased"]),
    )
    columns = ("networks", "n", "confidence, right", "wrong", "largest class", "above half")
    columns += ("biased", "no answer", "F1, mean of classes")
    rows = [_row(title, found) for title, found in numbers.items()]
    figures = {
        "confusion.png": (
            "Confusion: answers to each class",
            partial(_confusions, counts),
        ),
        "classes.png": ("How often each class is answered", partial(_class_counts, counts, true_K)),
        "confidence.png": ("Confidence of right and wrong answers", partial(_confidences, numbers)),
    }
    told = {"images_of_class": true_K.tolist(), "sets": numbers}
    return Findings(words, columns, rows=rows, numbers=told, figures=figures)


def confusion(answers_SM: np.ndarray, labels_M: np.ndarray, *, num_classes: int) -> np.ndarray:
    """Return counts_KA of all networks' answers, int64: class of the image, answer, none at last.

    Args:
        answers_SM: -1 for none.
        labels_M: class of each image.
        num_classes: K.
    """
    wide, counts = num_classes + 1, np.zeros(num_classes * (num_classes + 1), np.int64)
    step = max(1, _BLOCK_NUMBERS // len(labels_M))
    for first in range(0, len(answers_SM), step):
        answers_BM = answers_SM[first : first + step].astype(np.int64)
        places_BM = labels_M * wide + np.where(answers_BM < 0, num_classes, answers_BM)
        counts += np.bincount(places_BM.ravel(), minlength=len(counts))
    return counts.reshape(num_classes, wide)


def _numbers(
    one: Scored, counts_KA: np.ndarray, labels_M: np.ndarray, true_K: np.ndarray
) -> dict[str, Json]:
    share_SK = np.stack([(one.answers_SM == k).mean(1) for k in range(len(true_K))], 1)
    right_SM, none_SM = one.answers_SM == labels_M, one.answers_SM < 0
    right = _confidence(one.confidence_SM[right_SM])
    wrong = _confidence(one.confidence_SM[~right_SM & ~none_SM])
    precision_K, recall_K, f1_K = _precision_recall(counts_KA)
    return {
        "n": len(one),
        "confusion": counts_KA[:, :-1].tolist(),
        "no_answer": float(none_SM.mean()),
        "answers_of_class": share_SK.mean(0).tolist(),
        "largest_class": statistics(share_SK.max(1)),
        "above_half": float((share_SK > 0.5).any(1).mean()),
        "biased": float((share_SK - true_K > (1 - true_K) / 2).any(1).mean()),
        "most_answered": int(share_SK.mean(0).argmax()),
        "right": right,
        "wrong": wrong,
        "precision": precision_K.tolist(),
        "recall": recall_K.tolist(),
        "f1": f1_K.tolist(),
    }


def _precision_recall(counts_KA: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and their harmonic mean of each class; 0 where nothing counts."""
    hits_K, square_KK = np.diag(counts_KA).astype(float), counts_KA[:, :-1]
    precision_K = hits_K / np.maximum(square_KK.sum(0), 1)
    recall_K = hits_K / np.maximum(counts_KA.sum(1), 1)
    both_K = np.maximum(precision_K + recall_K, 1e-300)
    return precision_K, recall_K, 2 * precision_K * recall_K / both_K


def _confidence(given_C: np.ndarray) -> dict[str, Json]:
    counts_H, _ = np.histogram(given_C, _BINS)
    mean = float(given_C.mean(dtype=np.float64)) if len(given_C) else math.nan
    return {"n": len(given_C), "mean": mean, "histogram": counts_H.tolist()}


def _row(title: str, found: dict[str, Json]) -> tuple[str, ...]:
    means = [found[kind]["mean"] for kind in ("right", "wrong")]
    return (
        title,
        str(found["n"]),
        *(number_cell(None if math.isnan(mean) else mean) for mean in means),
        share_cell(found["largest_class"]["mean"]),
        share_cell(found["above_half"]),
        share_cell(found["biased"]),
        share_cell(found["no_answer"]),
        number_cell(float(np.mean(found["f1"]))),
    )


def _warning(title: str, found: dict[str, Json]) -> str:
    return (
        f"{title}: {share_cell(found['biased'])} of its networks are biased to one class; over all "
        f"of them class {found['most_answered']} is answered most."
    )


def _confusions(counts: dict[str, np.ndarray], width: Width) -> Figure:
    height = 2.6 if width.is_narrow else 2.1
    figure, each_axes = panels(width, len(counts), height=height, across=_PANELS)
    for axes, (title, counts_KA) in zip(each_axes, counts.items(), strict=True):
        share_KA = counts_KA[:, :-1] / np.maximum(counts_KA.sum(1, keepdims=True), 1)
        image = axes.imshow(share_KA, cmap="cividis", vmin=0, vmax=1)
        axes.set_title(_short(title))
        axes.set_xlabel("answer")
        if len(share_KA) <= _MOST_NAMED:
            axes.set_xticks(range(len(share_KA)))
            axes.set_yticks(range(len(share_KA)))
            axes.tick_params(labelsize=6.5)
    each_axes[0].set_ylabel("class of the image")
    figure.colorbar(image, ax=each_axes, label="share of its images", shrink=0.8)
    return figure


def _class_counts(counts: dict[str, np.ndarray], true_K: np.ndarray, width: Width) -> Figure:
    figure, (axes,) = panels(width, height=2.4)
    place_K, wide = np.arange(len(true_K)), 0.8 / (len(counts) + 1)
    bars = {"the images themselves": true_K}
    bars |= {title: found[:, :-1].sum(0) / found.sum() for title, found in counts.items()}
    for i, (title, share_K) in enumerate(bars.items()):
        colour = INK if i == 0 else f"C{i - 1}"
        left_K = place_K - 0.4 + (i + 0.5) * wide
        axes.bar(left_K, 100 * share_K, wide, label=title, color=colour)
    if len(true_K) <= _MOST_NAMED:
        axes.set_xticks(place_K)
    axes.set_xlabel("class")
    axes.set_ylabel("share of all answers (%)")
    legend_below(figure, axes, width=width)
    return figure


def _confidences(numbers: dict[str, dict[str, Json]], width: Width) -> Figure:
    figure, each_axes = panels(width, 2, height=2.3)
    for axes, kind in zip(each_axes, ("right", "wrong"), strict=True):
        for title, found in numbers.items():
            counts_H = np.array(found[kind]["histogram"])
            share_H = counts_H / max(counts_H.sum(), 1)
            axes.stairs(100 * share_H, _BINS, label=title, linewidth=1.3)
        axes.set_title(f"{kind} answers")
        axes.set_xlabel("confidence")
        axes.set_ylabel("share of these answers (%)")
    legend_below(figure, each_axes[1], width=width)
    return figure


def _short(title: str) -> str:
    return title if len(title) <= 28 else f"{title[:27]}…"
