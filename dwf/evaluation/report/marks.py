"""Marks: is a set of networks copying, averaging, noise, or generalising? By rule, from figures.

Published generators of weights return "replicas, or, at best, simple interpolations" of their
training networks, and do not beat noise and averages at being different and good at once (Zeng et
al., arXiv 2506.07998, abstract). A mark says which of these a set is, or that it is none of them.
Each network is first of one kind (`Limits.kinds`), from figures of its own:

    copy      a ratio < 0.25, or a ratio < 0.5 and not an average; and below that test's limit
    average   reach < 0.84, and no copy of the first two kinds
    far       all others

where ratios are those of weights, of behaviour and of the units of each hidden layer (`Novelty`)
to the training networks' own median, and reach
the distance to the training networks' mean in the median of theirs (an average of k independent
networks has 1 / sqrt(k), an independent network 1). Then a set is, by the first that holds:

    copying        most (more than 60 %) of its networks are copies
    averaging      most are averages
    undecided      most are not far either: a mixture
    noise          not clearly more accurate than a baseline that is as far (any Gaussian, and all
                   others but the null arms whose median ratio of weights is not below its own):
                   nothing had to be learnt for it
    generalising   a share of good and novel networks clearly above that of every baseline, and a
                   dispersion of at least 0.7
    undecided      the rest

Clearly: by more than 1.96 standard errors of the difference. So every set has exactly one mark,
and a baseline is never generalising: it is as accurate as itself. More noise around networks turns
copying into noise; averaging more of them stays averaging; more accurate or more novel networks
never turn generalising into anything else. In a zoo whose baselines are good and novel themselves,
or that is too small, held-out networks do not generalise either, and the report says so.

Shape suffixes: none; a set is one row of the report.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dwf.evaluation.measure import CONFIDENCE, FAMILIES
from dwf.evaluation.report.sets import NetworkSet

MARKS = ("copying", "averaging", "noise", "generalising", "undecided")
MOST = 0.6
"""More than this share of a set's networks are most of them: of even mixtures nothing is most."""
LOST_VARIETY = 0.7
"""Dispersion ratio below which a generator has lost variety."""
DISTANCE = "the zoo's own nearest-neighbour distance"
"""Name of the unit of ratios, in the sentences."""


@dataclass(frozen=True)
class Mark:
    """Kind of a set of networks, and the figures that say so."""

    name: str
    """One of `MARKS`."""
    why: str
    """One sentence, the figures that decided."""


def marked(sets: Sequence[NetworkSet]) -> list[NetworkSet]:
    """Return the rows of a report with a mark in the summary of each but the originals.

    Originals are the scale, and are held against each other.
    """
    return [
        one
        if one.family == "originals"
        else replace(one, summary=one.summary | {"mark": vars(mark(one, sets))})
        for one in sets
    ]


def mark(one: NetworkSet, sets: Sequence[NetworkSet]) -> Mark:
    """Return the mark of a set; see the head of this file.

    Args:
        one: a row of the report.
        sets: all rows; it is held against the baselines of more than one network among them, of
            which the Gaussians are always there.
    """
    baselines = [other for other in sets if other.is_baseline and other.n > 1]
    copies, averages = one.summary["copy"], one.summary["average"]
    if copies > MOST:
        return Mark("copying", _copying(one))
    if averages > MOST:
        return Mark("averaging", _averaging(one))
    if 1 - copies - averages <= MOST:
        return Mark("undecided", _mixture(one))
    match = max((other for other in baselines if _as_far(other, one)), key=_accuracy)
    if not _clearly_more_accurate(one, match):
        return Mark("noise", _noise(one, match))
    best = max(baselines, key=lambda other: other.share)
    lost = _lost_variety(one)
    if lost is None and all(exceeds(one, other) for other in baselines):
        return Mark("generalising", _generalising(one, match, best))
    return Mark("undecided", f"{_ahead(one, match)}, but {lost or _not_above(one, best)}.")


def exceeds(one: NetworkSet, other: NetworkSet) -> bool:
    """Whether a set's share of good and novel networks is clearly above another's.

    By the interval of Agresti and Caffo (The American Statistician 54, 2000), one network more
    that is and one that is not on either side: it also holds where a share is 0 or 1.
    """
    shares = [((s.share * s.n + 1) / (s.n + 2), s.n + 2) for s in (one, other)]
    variance = sum(share * (1 - share) / n for share, n in shares)
    return shares[0][0] - shares[1][0] > CONFIDENCE * math.sqrt(variance)


def accuracy_error(one: NetworkSet, other: NetworkSet) -> float:
    """Return the standard error of the difference of two sets' mean accuracies."""
    found = [(s.accuracy["std"] or 0, s.n) for s in (one, other)]
    return math.sqrt(sum(std**2 / n for std, n in found))


def ratio(one: NetworkSet) -> float:
    """Return the median distance ratio; infinite where it is not a number."""
    median = one.figure("distance_ratio")
    return math.inf if median is None else median


def _as_far(other: NetworkSet, one: NetworkSet) -> bool:
    family = FAMILIES[other.family]
    return family.is_far or (not family.is_disguised and ratio(other) >= ratio(one))


def _accuracy(one: NetworkSet) -> float:
    return one.accuracy["mean"]


def _clearly_more_accurate(one: NetworkSet, other: NetworkSet) -> bool:
    return _accuracy(one) - _accuracy(other) > CONFIDENCE * accuracy_error(one, other)


def _lost_variety(one: NetworkSet) -> str | None:
    dispersion = one.summary["dispersion"]
    if dispersion is None:
        return "one network has no variety"
    if dispersion < LOST_VARIETY:
        return f"their spread is only {dispersion:.2f} of the zoo's"
    return None


# --- the sentences -------------------------------------------------------------------------------


def _copying(one: NetworkSet) -> str:
    return (
        f"{percent(one.summary['copy'])} are copies of training networks or of their units: they "
        f"lie at {ratio(one):.3f} (median) of {DISTANCE}; in behaviour at "
        f"{_ratio_words(one, 'behaviour_ratio')}, in units at {_ratio_words(one, 'units_ratio')} "
        "of these networks' own median."
    )


def _averaging(one: NetworkSet) -> str:
    return (
        f"{percent(one.summary['average'])} are drawn in to the mean of the training networks: to "
        f"{_reach(one):.2f} (median) of these networks' own distance from it; an average of two "
        "has 0.71."
    )


def _ratio_words(one: NetworkSet, measure: str) -> str:
    median = one.figure(measure)
    return "no known distance" if median is None else f"{median:.3f}"


def _mixture(one: NetworkSet) -> str:
    copies, averages = (percent(one.summary[kind]) for kind in ("copy", "average"))
    return f"They are a mixture: {copies} are copies, {averages} averages, the others neither."


def _noise(one: NetworkSet, match: NetworkSet) -> str:
    if match.title == one.title:
        return (
            f"They are what is had at {ratio(one):.3f} of {DISTANCE} "
            f"without learning: {_figure(one)}."
        )
    return (
        f"At {ratio(one):.3f} of {DISTANCE} they are not clearly "
        f'more accurate ({_figure(one)}) than "{match.title}" ({_figure(match)} at '
        f"{ratio(match):.3f}), for which nothing had to be learnt."
    )


def _generalising(one: NetworkSet, match: NetworkSet, best: NetworkSet) -> str:
    shares = f"{percent(one.share)} are good and novel (the best baseline: {percent(best.share)})"
    return f"{_ahead(one, match)}, and {shares}."


def _ahead(one: NetworkSet, match: NetworkSet) -> str:
    return (
        f"At {ratio(one):.3f} of {DISTANCE} they are more accurate "
        f'({_figure(one)}) than "{match.title}" ({_figure(match)})'
    )


def _not_above(one: NetworkSet, best: NetworkSet) -> str:
    return (
        f"their share of good and novel networks ({percent(one.share)} of {one.n}) is not clearly "
        f"above the best baseline's ({percent(best.share)})"
    )


def _reach(one: NetworkSet) -> float:
    median = one.figure("reach")
    return math.inf if median is None else median


def _figure(one: NetworkSet) -> str:
    return f"{100 * _accuracy(one):.2f} %"


def percent(share: float) -> str:
    """Return a share in percent, as sentences have it."""
    return f"{100 * share:.3g} %"
