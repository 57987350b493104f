"""Conditions that samples were asked for, against what was drawn.

Where the report measures a condition itself (an accuracy), a network's own value is taken; for
other conditions it is the value of the nearest training network. A generator that follows a number
draws on the line through the origin with slope 1.

Shape suffix: S networks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import linregress

from dwf.evaluation.report.columns import Column, accuracy_cell, number_cell, share_cell
from dwf.evaluation.report.sets import NetworkSet, plain, statistics
from dwf.plain import Json
from dwf.zoo.provenance import ASKED

ASKED_TEXT = (
    "Samples of one generator are taken together, whichever zoo of samples they are in. Of an "
    "accuracy on validation images, drawn is what each network reaches; of any other condition it "
    "is that of the training network nearest to it. Slope: of drawn on asked, by least squares, +- "
    "its standard error; 1 is a generator that follows, 0 one that does not hear. Of categories: "
    "the share of the networks whose nearest training network is of the one that was asked for, "
    "and the accuracy that is scored here. Held-out networks, as asked for what they are, tell how "
    "much neighbours can tell. Retrieval is no generator: the training network nearest to what was "
    "asked for."
)
# More categories (each checkpoint of a zoo) are one row together.
_MOST_ROWS = 24


@dataclass(frozen=True)
class Answers:
    """Networks of one generator, or retrieved in its place, and one condition."""

    source: str
    """The generator, with `retrieval for` before it where training networks stand for it; or held-
    out networks, which count as asked for what they are."""
    condition: str
    asked: list[float | str]
    drawn: list[float | str] | None
    """Values that they have; None where nothing tells."""
    accuracy_S: np.ndarray


def answers(sets: Sequence[NetworkSet]) -> Iterator[Answers]:
    """Yield what was asked for and drawn, of each generator, of each condition."""
    groups: dict[tuple[str, str], list[NetworkSet]] = {}
    for one in sets:
        for key in (key for key in one.networks if key.startswith(ASKED)):
            groups.setdefault((_source(one), key.removeprefix(ASKED)), []).append(one)
    for (source, name), group in groups.items():
        drawn = [one.networks.get(_drawn_in(one, name)) for one in group]
        yield Answers(
            source,
            name,
            [value for one in group for value in one.networks[ASKED + name]],
            None if None in drawn else [value for each in drawn for value in each],
            np.concatenate([one.accuracy_S for one in group]),
        )


def _source(one: NetworkSet) -> str:
    """Return whose networks these are: a generator's, retrieved in its place, or trained."""
    if "condition" not in one.summary:
        return one.title
    before = "retrieval for " if one.family == "retrieval" else ""
    return before + one.summary["condition"]["generator"]


def _drawn_in(one: NetworkSet, name: str) -> str:
    """Return the key of what is measured for a condition."""
    return name if name == "val_accuracy" and name in one.networks else f"nearest_{name}"


def asked_against_drawn(sets: Sequence[NetworkSet]) -> dict[str, list[dict[str, Json]]]:
    """Return what was asked for against what was drawn, plain data; nothing where nothing was.

    Returns:
        `numbers`: of each generator and number `source`, `condition`, `n`, `asked` (statistics),
        `drawn` (statistics), `slope`, `standard_error` and `correlation` (None of one value).
        `categories`: of each generator, condition and category asked for, or of all where there
        are many, `source`, `condition`, `asked`, `n`, `share` (None where nothing tells) and
        `accuracy` (statistics).
    """
    found: dict[str, list[dict[str, Json]]] = {"numbers": [], "categories": []}
    for each in answers(sets):
        if isinstance(each.asked[0], str):
            found["categories"] += _categories(each)
        elif each.drawn is not None:
            found["numbers"].append(_number(each))
    return plain(found) if any(found.values()) else {}


def _number(each: Answers) -> dict[str, Json]:
    asked_S, drawn_S = np.array(each.asked, float), np.array(each.drawn, float)
    line: dict[str, float | None] = dict.fromkeys(("slope", "standard_error", "correlation"))
    if len(set(each.asked)) > 1 and len(each.asked) > 2:
        fit = linregress(asked_S, drawn_S)
        line = {"slope": fit.slope, "standard_error": fit.stderr, "correlation": fit.rvalue}
    about = {"source": each.source, "condition": each.condition, "n": len(asked_S)}
    return about | {"asked": statistics(asked_S), "drawn": statistics(drawn_S)} | line


def _categories(each: Answers) -> Iterator[dict[str, Json]]:
    asked_S, categories = np.array(each.asked), sorted(set(each.asked))
    several = {name: asked_S == name for name in categories}
    if len(categories) > _MOST_ROWS:
        several = {f"{len(categories)} of them": np.ones(len(asked_S), bool)}
    for name, is_of_S in several.items():
        known = each.drawn is not None and not any(":" in words for words in asked_S[is_of_S])
        share = None
        if known:
            share = float((np.array(each.drawn)[is_of_S] == asked_S[is_of_S]).mean())
        yield {
            "source": each.source,
            "condition": each.condition,
            "asked": name,
            "n": int(is_of_S.sum()),
            "share": share,
            "accuracy": statistics(each.accuracy_S[is_of_S]),
        }


def _range(found: dict[str, float]) -> str:
    if found["min"] == found["max"]:
        return f"{found['min']:.4g}"
    return f"{found['min']:.4g} to {found['max']:.4g}"


def _mean(found: dict[str, float]) -> str:
    spread = "" if found["std"] is None else f" +- {found['std']:.4g}"
    return f"{found['mean']:.4g}{spread}"


def _slope(row: dict[str, Json]) -> str:
    if row["slope"] is None:
        return "-"
    return f"{row['slope']:.3f} +- {row['standard_error']:.3f}"


NUMBER_COLUMNS: tuple[Column[dict[str, Json]], ...] = (
    Column("generator", lambda row: row["source"]),
    Column("condition", lambda row: row["condition"]),
    Column("n", lambda row: str(row["n"])),
    Column("asked", lambda row: _range(row["asked"])),
    Column("drawn", lambda row: _mean(row["drawn"])),
    Column("slope", _slope),
    Column("correlation", lambda row: number_cell(row["correlation"])),
)
"""Table of the conditions that are numbers."""
CATEGORY_COLUMNS: tuple[Column[dict[str, Json]], ...] = (
    Column("generator", lambda row: row["source"]),
    Column("condition", lambda row: row["condition"]),
    Column("asked", lambda row: row["asked"]),
    Column("n", lambda row: str(row["n"])),
    Column("nearest is of it", lambda row: share_cell(row["share"])),
    Column("accuracy (%)", lambda row: accuracy_cell(row["accuracy"])),
)
"""Table of the conditions that are categories."""
