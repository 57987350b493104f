"""One analysis: what it is called, what it looks at, what it finds."""

from collections.abc import Callable
from dataclasses import dataclass, field

from dwf.evaluation.analyses.material import Material
from dwf.evaluation.report import Draw
from dwf.plain import Json


@dataclass(frozen=True)
class Findings:
    """An analysis' outcome: numbers, and what a reader sees of them."""

    words: tuple[str, ...]
    """Sentences on what was done, and how to read it."""
    columns: tuple[str, ...] = ()
    """Heading of the table; empty without one."""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    """Cells of the table."""
    numbers: dict[str, Json] = field(default_factory=dict)
    """Plain data for `report.json`."""
    figures: dict[str, tuple[str, Draw]] = field(default_factory=dict)
    """Name of a PNG file -> caption, and what draws it."""


@dataclass(frozen=True)
class Analysis:
    """A way to look at a report's networks."""

    title: str
    """Heading of its section."""
    look: Callable[[Material], Findings]
    """Returns what it finds; where there is nothing to look at, words alone that say why."""
