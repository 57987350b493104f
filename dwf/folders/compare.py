"""Two folders beside each other: settings that differ, numbers, and whether these differ by luck.

Shape suffixes: N networks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from dwf.folders.content import Content, Group, Numbers
from dwf.folders.significance import Outcome, tell_apart
from dwf.plain import Json

_LEVEL = 0.05


@dataclass(frozen=True)
class Row:
    """One measure of a set, on both sides."""

    title: str
    """The set; of two names, both."""
    measure: str
    """Name of the measure."""
    is_share: bool
    """Whether its values are shares."""
    a: float | None
    """Value of the first side, a mean or a median; None where it has none."""
    b: float | None
    """Value of the second."""
    outcome: Outcome
    """The test."""

    @property
    def difference(self) -> float | None:
        """B - A; None where a side has none."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def cells(self) -> list[str]:
        """Its cells under `COLUMNS`."""
        shown = [_shown(value, self.is_share) for value in (self.a, self.b)]
        apart = _shown(self.difference, self.is_share, signed=True)
        p = self.outcome.p
        counts = " and ".join(map(str, sorted(set(self.outcome.n), reverse=True)))
        named = self.measure + (" (%)" if self.is_share else "")
        name = f"{self.outcome.name}, n = {counts}" if self.outcome.name else "none"
        return [self.title, named, *shown, apart, name, "" if p is None else f"{p:.2g}"]


COLUMNS = ("networks", "measure", "A", "B", "B - A", "test", "p")


@dataclass(frozen=True)
class Compared:
    """Outcome of a comparison."""

    settings: tuple[tuple[str, Json, Json], ...]
    """Dotted key -> value on either side, where they differ; None where a side has none."""
    num_settings: int
    """How many settings there are in all."""
    rows: tuple[Row, ...]
    alone: tuple[str, ...]
    """Sentences on sets that one side alone has."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on how the tests are to be read."""
        names = {row.outcome.name.partition(" ")[0] for row in self.rows}
        words = []
        if "paired" in names:
            words.append(
                "Paired: both sides are the same networks (of trained zoos: of the same seed), and "
                "each is held against itself."
            )
        if "unpaired" in names:
            words.append(
                "Unpaired: the sides are different networks, or nothing tells that they are the "
                "same."
            )
        count = sum(row.outcome.p is not None for row in self.rows)
        if count:
            words.append(
                f"p is two-sided, of one test alone; of {count} tests, one at {_LEVEL / count:.2g} "
                f"or below is a difference at {_LEVEL:g} (Bonferroni)."
            )
        elif self.rows:
            words.append("No test was made: one number of each side says nothing of its spread.")
        return tuple(words)

    def to_json(self) -> dict[str, Json]:
        """Return it as plain data."""
        settings = [{"key": key, "a": a, "b": b} for key, a, b in self.settings]
        rows = [asdict(row) | {"difference": row.difference} for row in self.rows]
        return {"settings": settings, "rows": rows, "alone": list(self.alone)}


def compare(a: Content, b: Content) -> Compared:
    """Set two folders of one kind beside each other."""
    keys = sorted(a.settings.keys() | b.settings.keys())
    pairs = ((key, a.settings.get(key), b.settings.get(key)) for key in keys)
    matched, alone = _matched(a.groups, b.groups)
    return Compared(
        settings=tuple(one for one in pairs if one[1] != one[2]),
        num_settings=len(keys),
        rows=tuple(row for pair in matched for row in _rows(*pair)),
        alone=tuple(alone),
    )


def _matched(a: Sequence[Group], b: Sequence[Group]) -> tuple[list[tuple[Group, Group]], list[str]]:
    """Return sets side by side: by title, then by family, in order; and who stands alone."""
    by_title = {one.title: one for one in b}
    partner = {one.title: by_title[one.title] for one in a if one.title in by_title}
    left_a = [one for one in a if one.title not in partner]
    left_b = [one for one in b if one.title not in partner]
    for family in dict.fromkeys(one.family for one in left_a):
        mine, theirs = ([o for o in left if o.family == family] for left in (left_a, left_b))
        if len(mine) == len(theirs):  # else nobody knows which belong together
            partner |= {one.title: other for one, other in zip(mine, theirs, strict=True)}
    met = {other.title for other in partner.values()}
    alone = [f"in A alone: {one.title}" for one in a if one.title not in partner]
    alone += [f"in B alone: {one.title}" for one in b if one.title not in met]
    return [(one, partner[one.title]) for one in a if one.title in partner], alone


def _rows(a: Group, b: Group) -> Iterator[Row]:
    title = a.title if a.title == b.title else f"{a.title} | {b.title}"
    for measure in dict.fromkeys((*a.measures, *b.measures)):
        mine, theirs = a.measures.get(measure), b.measures.get(measure)
        either = mine or theirs
        outcome = Outcome("")
        if mine and theirs:
            networks = (a.networks, b.networks)
            outcome = tell_apart(mine.values_N, theirs.values_N, networks=networks)
        values = (_figure(mine), _figure(theirs))
        yield Row(title, measure, either.is_share, a=values[0], b=values[1], outcome=outcome)


def _figure(numbers: Numbers | None) -> float | None:
    if numbers is None or not math.isfinite(numbers.figure):
        return None
    return numbers.figure


def _shown(value: float | None, is_share: bool, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.2f}" if is_share else f"{value:{sign}.5g}"
