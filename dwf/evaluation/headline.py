"""What the numbers say, in sentences computed from them: also when it is bad news."""

import math
from collections.abc import Sequence

from dwf.evaluation.novelty import Limits
from dwf.evaluation.report import NetworkSet

NEAR_COPY = 0.25
"""Median distance ratio below which networks are called near-copies."""
LOST_VARIETY = 0.7
"""Dispersion ratio below which a generator has lost variety."""
MOST = 0.9
"""A test that a smaller share of the networks passes is named as a reason."""
CONFIDENCE = 1.96
"""Standard errors that a difference must exceed to be called one."""
STEPS = (
    "This zoo is one network: its rows are steps of one training run, and each counts as a network "
    "here. Held-out networks are later steps of that run, not networks trained anew"
)
ONE_NETWORK = (
    f"{STEPS}, and distances are measured in the distance from a step to the nearest other one: "
    "what is novel here is not another network."
)
"""Said of a zoo that is split by blocks of steps."""


def headline(sets: Sequence[NetworkSet], limits: Limits) -> tuple[str, ...]:
    """Return the report's first paragraphs: for each zoo of samples a verdict and its reasons.

    A generator beats the baselines where its share of good and novel networks exceeds that of each
    by more than 1.96 standard errors of the difference. A baseline that makes a single network
    has no share to compare; it is named where that network is good and novel.

    Args:
        sets: all rows of the report.
        limits: what good and novel means here.
    """
    ceiling = next((one for one in sets if one.family == "held-out"), None)
    baselines = [one for one in sets if one.is_baseline and one.n > 1]
    paragraphs = []
    for one in sets:
        if one.family == "samples":
            paragraphs += [_verdict(one, baselines, ceiling), _reasons(one, baselines)]
    if not paragraphs:
        paragraphs.append("No generated networks were scored: these are the scales for them.")
    single = [one.title for one in sets if one.is_baseline and one.n == 1 and one.share == 1]
    if single:
        paragraphs.append(f"The one network that is the {single[0]} is good and novel too.")
    if sets[0].scored != "test_accuracy":
        paragraphs.append("Scored on validation networks and images: for choices, not a result.")
    if limits.overlap_tests_nothing:
        paragraphs.append(
            "Training networks give exactly the wrong answers of their nearest others here, so the "
            "overlap of wrong answers tests nothing."
        )
    return tuple(paragraphs)


def exceeds(one: NetworkSet, other: NetworkSet) -> bool:
    """Whether a set's share of good and novel networks is clearly above another's."""
    variance = sum(s.share * (1 - s.share) / s.n for s in (one, other))
    return one.share - other.share > CONFIDENCE * math.sqrt(variance)


def _verdict(one: NetworkSet, baselines: Sequence[NetworkSet], ceiling: NetworkSet | None) -> str:
    share = f"{_percent(one.share)} of the {one.n} networks in {one.label} are good and novel"
    compared = _comparison(one, max(baselines, key=lambda other: other.share))
    limit = ""
    if ceiling:
        limit = f" The ceiling: {_percent(ceiling.share)} of {ceiling.n} held-out networks."
    return f"{share}: {compared}.{limit}"


def _comparison(one: NetworkSet, best: NetworkSet) -> str:
    theirs = f"the best: {best.title}, {_percent(best.share)}" if best.share else "none has any"
    if exceeds(one, best):
        return f"it beats every baseline ({theirs})"
    if one.share > best.share:
        return f"it is not clearly above the baselines ({theirs})"
    return f"it does not beat the baselines ({theirs})"


def _reasons(one: NetworkSet, baselines: Sequence[NetworkSet]) -> str:
    accuracy, ratio = one.summary[one.scored], _ratio(one)
    measure = one.scored.replace("_", " ")
    spread = "" if accuracy["std"] is None else f" +- {100 * accuracy['std']:.2f}"
    reasons = [
        f"Their {measure} is {100 * accuracy['mean']:.2f}{spread} %, and they lie at {ratio:.3f} "
        "of the zoo's own nearest-neighbour distance from their nearest training "
        "networks (median)."
    ]
    if ratio < NEAR_COPY:
        reasons.append("They are near-copies of training networks.")
    match = _as_good_without_learning(one, baselines)
    if match:
        mean = 100 * match.summary[match.scored]["mean"]
        reasons.append(
            f'"{match.title}" is as accurate ({mean:.2f} %) and no closer ({_ratio(match):.3f}), '
            "and nothing had to be learnt for it."
        )
    failures = {
        "accurate": "not accurate enough",
        "distant": "too close to a training network",
        "different": "too like their nearest training network in their mistakes",
    }
    for test, words in failures.items():
        if one.summary[test] < MOST:
            reasons.append(f"{_percent(1 - one.summary[test])} are {words}.")
    dispersion = one.summary["dispersion"]
    if dispersion is not None and dispersion < LOST_VARIETY:
        reasons.append(f"Their spread is only {dispersion:.2f} of the zoo's: variety was lost.")
    return " ".join(reasons)


def _as_good_without_learning(
    one: NetworkSet, baselines: Sequence[NetworkSet]
) -> NetworkSet | None:
    """The most distant baseline that is as accurate, within the error, and no closer."""
    as_good = [
        other for other in baselines if _as_accurate(other, one) and _ratio(other) >= _ratio(one)
    ]
    return max(as_good, key=_ratio, default=None)


def _ratio(one: NetworkSet) -> float:
    return one.summary["distance_ratio"]["median"]


def _as_accurate(other: NetworkSet, one: NetworkSet) -> bool:
    theirs, mine = (s.summary[s.scored] for s in (other, one))
    variance = (theirs["std"] or 0) ** 2 / other.n + (mine["std"] or 0) ** 2 / one.n
    return theirs["mean"] >= mine["mean"] - CONFIDENCE * math.sqrt(variance)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
