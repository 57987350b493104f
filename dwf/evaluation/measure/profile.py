"""Profile of a set: how its share of good networks moves with the limits, and what it spreads over.

The rule of good and novel has one bar of accuracy and one limit of distance. A profile moves them:
far from the training networks few rows have anything left, whatever the bar.

Shape suffixes: S networks of a set, N training networks, C principal axes of these.
"""

import numpy as np

from dwf.evaluation.measure.limits import Limits, Novelty
from dwf.plain import Json
from dwf.randomness import numpy_stream

RATIOS = (1.0, 1.5, 2.0, 3.0)
"""Distances, in the median of the training networks' own leave-one-out distances."""
DEVIATIONS = (1, 2, 4)
"""Bars of accuracy, in standard deviations below the training networks' mean."""
MOST_AXES = 64
_BYTES = 64 * 2**20
_NO_VARIANCE = 1e-9  # of the largest deviation along an axis: rounding


def num_axes(num_networks: int, size: int) -> int:
    """Return how many principal axes are kept: fewer of large networks, two at least for the map.

    Args:
        num_networks: training networks that they come from.
        size: numbers of a network.
    """
    return max(2, min(MOST_AXES, num_networks - 1, size, _BYTES // (8 * size)))


def accuracy_bars(accuracy_N: np.ndarray, bar: float) -> dict[str, float]:
    """Return the bars of accuracy by name: those that training networks set, and a fixed one."""
    mean, std = float(accuracy_N.mean()), float(accuracy_N.std(ddof=1))
    bars = {f"mean - {times} std": mean - times * std for times in DEVIATIONS}
    return bars | {"fixed": bar}


def profile_of(
    *,
    accuracy_S: np.ndarray,
    novelty: Novelty,
    places_SC: np.ndarray,
    disagreement_S: np.ndarray,
    limits: Limits,
    bars: dict[str, float],
    zoo_places_NC: np.ndarray,
    zoo_disagreement_N: np.ndarray,
) -> dict[str, Json]:
    """Return the profile of a set.

    Args:
        accuracy_S: of its networks, float64.
        novelty: of its networks.
        places_SC: of its networks on the principal axes, float64.
        disagreement_S: of its networks with their nearest training networks, float64.
        limits: what good and novel means.
        bars: see `accuracy_bars`.
        zoo_places_NC: places of training networks.
        zoo_disagreement_N: theirs, each with its nearest other one.

    Returns:
        `far`: ratio of distance -> share of networks that are accurate and at least so far;
        `bars`: name -> `accuracy`, and `share` of networks that are novel and at least so accurate;
        `disagreement`: mean of the `set` and of the `zoo`; `effective_rank` of the `set`, and of as
        many training networks, the `zoo`; `spread`: for each axis the set's standard deviation in
        that of the training networks, None where these have none.
    """
    passed, ratio_S = limits.passed(accuracy_S, novelty), limits.ratios(novelty)[:, 0]
    novel_S = passed["distant"] & passed["unlike"] & passed["new_units"]
    far = {f"{at:g}": float(np.mean(passed["accurate"] & (ratio_S >= at))) for at in RATIOS}
    above = {
        name: {"accuracy": at, "share": float(np.mean(novel_S & (accuracy_S >= at)))}
        for name, at in bars.items()
    }
    mean = {"set": float(disagreement_S.mean()), "zoo": float(zoo_disagreement_N.mean())}
    return {
        "far": far,
        "bars": above,
        "disagreement": mean,
        "effective_rank": _ranks(places_SC, zoo_places_NC),
        "spread": spread_along(places_SC, zoo_places_NC),
    }


def effective_rank(places_SC: np.ndarray) -> float:
    """Return the exponential of the entropy of the variances along a set's own axes.

    C for a set that spreads alike over C dimensions, 1 on a line (Roy and Vetterli, EUSIPCO 2007,
    of the covariance); NaN of a set without spread, and where a place is not finite.
    """
    if len(places_SC) < 2 or not np.isfinite(places_SC).all():
        return float("nan")
    centred_SC = places_SC - places_SC.mean(0)
    variance_C = np.linalg.svd(centred_SC, compute_uv=False) ** 2
    if variance_C.max() == 0:
        return float("nan")
    share_C = variance_C / variance_C.sum()
    share_C = share_C[share_C > 0]
    return float(np.exp(-(share_C * np.log(share_C)).sum()))


def spread_along(places_SC: np.ndarray, zoo_places_NC: np.ndarray) -> list[float | None]:
    """Return a set's standard deviation along each axis in the zoo's; None where that has none."""
    if len(places_SC) < 2:
        return [None] * places_SC.shape[1]
    own_C, zoo_C = places_SC.std(0, ddof=1), zoo_places_NC.std(0, ddof=1)
    there_C = zoo_C > _NO_VARIANCE * zoo_C.max()
    pairs = zip(own_C.tolist(), zoo_C.tolist(), there_C.tolist(), strict=True)
    return [own / zoo if there else None for own, zoo, there in pairs]


def _ranks(places_SC: np.ndarray, zoo_places_NC: np.ndarray) -> dict[str, float]:
    """Return the effective rank of a set and of as many training networks: it grows with them."""
    num, total = len(places_SC), len(zoo_places_NC)
    some_N = numpy_stream(0, "effective rank", num).permutation(total)[:num]
    return {"set": effective_rank(places_SC), "zoo": effective_rank(zoo_places_NC[some_N])}
