"""Sentences on what the numbers say, computed from them: also when it is bad news."""

from collections.abc import Mapping, Sequence

from dwf.evaluation.measure import CONFIDENCE, FAMILIES, Limits
from dwf.evaluation.report.marks import (
    DISTANCE,
    LOST_VARIETY,
    accuracy_error,
    exceeds,
    percent,
    ratio,
)
from dwf.evaluation.report.sets import NetworkSet

NEARLY_ALL = 0.9
"""A test that a smaller share of the networks passes is named as a reason."""
STEPS = (
    "This zoo is one network: its rows are steps of one training run, and each counts as a network "
    "here. Held-out networks are later steps of that run, not networks trained anew"
)
ONE_NETWORK = (
    f"{STEPS}, and distances are measured in the distance from a step to the nearest other one: "
    "what is novel here is not another network."
)
"""Said of a zoo that is split by blocks of steps."""


def headline(
    sets: Sequence[NetworkSet], limits: Limits, *, limits_of: Mapping[str, Limits] | None = None
) -> tuple[str, ...]:
    """Return the report's first paragraphs: for each zoo of samples a verdict and its reasons.

    A verdict begins with the set's mark, the reasons with what decided it (see `marks`). A
    generator beats the baselines where its share of good and novel networks exceeds that of each
    by more than 1.96 standard errors of the difference (`marks.exceeds`); baselines are those of
    the networks that the generator learnt from. A baseline that makes a
    single network has no share to compare; it is named where that network is good and novel.

    Args:
        sets: all rows of the report, marked.
        limits: what good and novel means here.
        limits_of: subset -> what it means where a generator learnt from this alone; see `Report`.
    """
    ceiling = next((one for one in sets if one.family == "held-out"), None)
    baselines = [one for one in sets if one.is_baseline and one.n > 1]
    paragraphs = []
    for one in sets:
        if one.family == "samples":
            own = [other for other in baselines if other.subset == one.subset]
            paragraphs += [_verdict(one, own, ceiling), _reasons(one, own)]
    if not paragraphs:
        paragraphs.append("No generated networks were scored: these are the scales for them.")
    single = [one.title for one in sets if one.is_baseline and one.n == 1 and one.share == 1]
    if single:
        paragraphs.append(f"The one network that is the {single[0]} is good and novel too.")
    if ceiling and ceiling.mark not in ("-", "generalising"):
        paragraphs.append(
            f"Held-out networks ({ceiling.n} of them) are marked {ceiling.mark} here, so the marks "
            "cannot tell a generator that generalises."
        )
    if sets[0].scored != "test_accuracy":
        paragraphs.append("Scored on validation networks and images: for choices, not a result.")
    paragraphs += _null_arms(baselines)
    for subset, own in {"": limits, **(limits_of or {})}.items():
        paragraphs += _without_limits(own, f" (of {subset})" if subset else "")
    return tuple(paragraphs)


def _null_arms(baselines: Sequence[NetworkSet]) -> list[str]:
    """Name the baselines in which networks count as good and novel: nothing was learnt for them."""
    found = [f"{one.title} ({percent(one.share)})" for one in baselines if one.share > 0]
    if not found:
        return []
    return [
        f"Networks for which nothing was learnt count as good and novel here: {'; '.join(found)}. "
        "The limits do not keep them out."
    ]


def _without_limits(limits: Limits, where: str) -> list[str]:
    found = []
    if limits.single_run:
        found.append(
            f"The training networks{where} are of a single run, so there is no limit of novelty, "
            "and nothing is called novel."
        )
    elif limits.without_effect:
        found.append(
            f"More than 1 % of the training networks{where} are copies of others in "
            f"{', '.join(limits.without_effect)}, which therefore tests nothing."
        )
    if limits.left_out:
        found.append(
            f"Units that are not compared{where}: {limits.left_out}; there behaviour and weights "
            "decide alone."
        )
    return found


def _verdict(one: NetworkSet, baselines: Sequence[NetworkSet], ceiling: NetworkSet | None) -> str:
    marked = "" if one.mark == "-" else f"{one.title}: {one.mark}. "
    share = f"{percent(one.share)} of the {one.n} networks of {one.label} are good and novel"
    compared = _comparison(one, baselines)
    limit = ""
    if ceiling:
        limit = f" The ceiling: {percent(ceiling.share)} of {ceiling.n} held-out networks."
    return f"{marked}{share}: {compared}.{limit}"


def _comparison(one: NetworkSet, baselines: Sequence[NetworkSet]) -> str:
    best = max(baselines, key=lambda other: other.share)
    theirs = f"the best: {best.title}, {percent(best.share)}" if best.share else "none has any"
    if all(exceeds(one, other) for other in baselines):
        return f"it beats every baseline ({theirs})"
    if one.share > best.share:
        return f"it is not clearly above the baselines ({theirs})"
    return f"it does not beat the baselines ({theirs})"


def _reasons(one: NetworkSet, baselines: Sequence[NetworkSet]) -> str:
    accuracy = one.accuracy
    measure = one.scored.replace("_", " ")
    spread = "" if accuracy["std"] is None else f" +- {100 * accuracy['std']:.2f}"
    reasons = [one.summary["mark"]["why"]] if "mark" in one.summary else []
    reasons.append(f"Their {measure} is {100 * accuracy['mean']:.2f}{spread} %.")
    if DISTANCE not in reasons[0]:
        reasons.append(
            f"They lie at {ratio(one):.3f} of {DISTANCE} from their nearest training networks "
            "(median)."
        )
    if one.mark != "noise":  # whose reason is the same
        reasons += _explained(one, baselines)
    failures = {
        "accurate": "not accurate enough",
        "distant": "too close to a training network in their weights",
        "unlike": "too like a training network in what they answer",
        "new_units": "made of units that are too like those of training networks",
    }
    for test, words in failures.items():
        if one.summary[test] < NEARLY_ALL:
            reasons.append(f"{percent(1 - one.summary[test])} are {words}.")
    dispersion = one.summary["dispersion"]
    if dispersion is not None and dispersion < LOST_VARIETY:
        reasons.append(f"Their spread is only {dispersion:.2f} of the zoo's: variety was lost.")
    return " ".join(reasons)


def _explained(one: NetworkSet, baselines: Sequence[NetworkSet]) -> list[str]:
    """Say which baseline explains samples: the most distant that is as accurate, within the error.

    It does where it is no closer; else, how close the baselines that are as accurate lie.
    """
    as_accurate = [
        other
        for other in baselines
        if not FAMILIES[other.family].is_disguised and _as_accurate(other, one)
    ]
    if not as_accurate:
        return ["No baseline reaches their accuracy."]
    match = max(as_accurate, key=ratio)
    mean = f"{100 * match.accuracy['mean']:.2f} %"
    if ratio(match) >= ratio(one):
        return [
            f'"{match.title}" is as accurate ({mean}) and no closer ({ratio(match):.3f}), and '
            "nothing had to be learnt for it."
        ]
    return [
        "No baseline as far away reaches their accuracy: the furthest that does is "
        f'"{match.title}" ({mean} at {ratio(match):.3f}).'
    ]


def _as_accurate(other: NetworkSet, one: NetworkSet) -> bool:
    theirs, mine = (s.accuracy for s in (other, one))
    return theirs["mean"] >= mine["mean"] - CONFIDENCE * accuracy_error(one, other)
