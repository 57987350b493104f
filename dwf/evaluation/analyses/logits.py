"""Distances of logits: of each network to the nearest training network, and Wasserstein's.

VAE-Diffusion's analysis of novelty holds logits of ten samples against ten references; here all
samples count. The Wasserstein distance of two networks' logits, taken as values without their
images, is the mean difference of the sorted values (both have equally many).

Shape suffixes: S networks of a set, J training networks they are held against, B of a block, F
logits of a network.
"""

from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure

from dwf.evaluation.analyses.analysis import Findings
from dwf.evaluation.analyses.material import Material
from dwf.evaluation.measure import nearest
from dwf.evaluation.report import INK, Width, look_of, name_rows, number_cell, panels, statistics
from dwf.plain import Json
from dwf.randomness import numpy_stream

MOST_TRAINING = 1000
"""Training networks that all others are held against, at most."""
_RATIOS = ("nearest", "wasserstein", "all_wasserstein")
_ROWS = 64


def logits(material: Material) -> Findings:
    """Hold the logits of all sets against those of training networks."""
    originals, *others = material.scored
    drawn = numpy_stream(0, "logits").permutation(len(originals))[:MOST_TRAINING]
    held_JF = originals.logits_SF[np.sort(drawn)]
    held_JF = held_JF[np.isfinite(held_JF).all(1)]
    if len(held_JF) < 2:
        return Findings(("Fewer than two training networks have finite logits.",))
    found = {originals.title: apart(held_JF, held_JF, are_same=True)}
    found |= {one.title: apart(one.logits_SF, held_JF) for one in others}
    units = {name: float(np.median(found[originals.title][name])) or 1.0 for name in _RATIOS}
    words = (
        f"Logits on {material.num_compared} images (of validation, where the zoo has any), of each "
        f"network against {len(held_JF)} training networks"
        f"{' at random' if len(held_JF) < len(originals) else ''}; these are held against each "
        "other. Nearest: root mean square difference to the most similar. Wasserstein: of the "
        "logits as values without their images, to the training network where it is least, and "
        "the mean to all. Each is a ratio to the training networks' own median: 0 is a copy, 1 as "
        "far as two of them. Variance: of a network's logits over the training networks' mean. "
        "Medians over the set.",
    )
    columns = ("networks", "n", "nearest", "Wasserstein, least", "to all", "variance", "not finite")
    rows, numbers = [], {}
    for title, one in found.items():
        summary = _summary(one, units)
        numbers[title] = summary
        cells = [number_cell(_median(summary, name)) for name in (*units, "variance")]
        rows.append((title, str(summary["n"]), *cells, str(summary["not_finite"])))
    draw = partial(_boxes, material, found, units)
    return Findings(
        words,
        columns,
        rows=rows,
        numbers={"units": units, "images": material.num_compared, "sets": numbers},
        figures={"logits.png": ("Distances of logits to training networks", draw)},
    )


def apart(
    logits_SF: np.ndarray, held_JF: np.ndarray, *, are_same: bool = False
) -> dict[str, np.ndarray]:
    """Hold networks' logits against those of training networks.

    Args:
        logits_SF: float32.
        held_JF: float32, finite.
        are_same: these are the training networks: each is held against the others.

    Returns:
        float64_S each, NaN where logits are not finite: `nearest`, root mean square difference of
        logits to the nearest; `wasserstein`, Wasserstein distance where it is least;
        `all_wasserstein`, its mean over all; `variance` of the logits, over the mean of theirs.
    """
    num, size = logits_SF.shape
    finite_S = np.isfinite(logits_SF).all(1)
    given_SF = logits_SF[finite_S]
    places_J = np.arange(len(held_JF))
    distance_S, _ = nearest(given_SF, [(places_J, held_JF)], own_B=places_J if are_same else None)
    least_S, mean_S = _wasserstein(given_SF, held_JF, are_same)
    spread = held_JF.astype(np.float64).var(1).mean()
    variance_S = given_SF.astype(np.float64).var(1) / max(spread, 1e-300)

    found = (distance_S / size**0.5, least_S, mean_S, variance_S)
    whole_4S = np.full((len(found), num), np.nan)
    whole_4S[:, finite_S] = found
    return dict(zip((*_RATIOS, "variance"), whole_4S, strict=True))


def _wasserstein(
    given_SF: np.ndarray, held_JF: np.ndarray, are_same: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return of each network the least Wasserstein distance to the others, and the mean to all."""
    mine_SF = torch.from_numpy(given_SF).sort(1).values
    theirs_JF = torch.from_numpy(held_JF).sort(1).values
    least_S, mean_S = np.empty(len(mine_SF)), np.empty(len(mine_SF))
    for first in range(0, len(mine_SF), _ROWS):
        rows = slice(first, first + _ROWS)
        apart_BJ = torch.cdist(mine_SF[rows], theirs_JF, p=1).double().numpy() / mine_SF.shape[1]
        others = apart_BJ.shape[1] - are_same
        mean_S[rows] = apart_BJ.sum(1) / others  # a network is at 0 from itself
        if are_same:
            row_B = np.arange(len(apart_BJ))
            apart_BJ[row_B, row_B + first] = np.inf
        least_S[rows] = apart_BJ.min(1)
    return least_S, mean_S


def _summary(one: dict[str, np.ndarray], units: dict[str, float]) -> dict[str, Json]:
    finite_S = np.isfinite(one["nearest"])
    summary: dict[str, Json] = {"n": len(finite_S), "not_finite": int((~finite_S).sum())}
    for name, values_S in one.items():
        ratio_S = values_S[finite_S] / units.get(name, 1.0)
        summary[name] = statistics(ratio_S) if len(ratio_S) else None
    return summary


def _median(summary: dict[str, Json], name: str) -> float | None:
    return summary[name] and summary[name]["median"]


def _boxes(
    material: Material,
    found: dict[str, dict[str, np.ndarray]],
    units: dict[str, float],
    width: Width,
) -> Figure:
    height = 0.28 * len(found) + 0.9
    figure, each_axes = panels(width, 2, height=height, share_y=True)
    sets = {one.title: one for one in material.report.sets}
    titles = ("difference of logits, to the nearest", "Wasserstein, to the nearest")
    for axes, title, name in zip(each_axes, titles, units, strict=False):
        for place, (row, one) in enumerate(found.items()):
            values_S = one[name][np.isfinite(one[name])] / units[name]
            look = {"facecolor": look_of(material.report, sets[row])[0], "alpha": 0.5}
            axes.boxplot(
                values_S,
                positions=[place],
                orientation="horizontal",
                widths=0.6,
                patch_artist=True,
                boxprops=look,
                medianprops={"color": INK},
                flierprops={"markersize": 2},
            )
        axes.axvline(1, color="#999999", linestyle=":", linewidth=1)
        axes.set_title(title)
        axes.set_xlabel("ratio to the training networks' own median")
        axes.set_xlim(left=0)
    name_rows(each_axes, list(found), width=width)
    return figure
