"""Findings of an analysis, as a report keeps and shows them."""

from dataclasses import dataclass

from dwf.plain import Json


@dataclass(frozen=True)
class Analysed:
    """A section of a report."""

    title: str
    words: list[str]
    """Sentences on what was done, and how to read it."""
    columns: list[str]
    """Heading of its table; empty without one."""
    rows: list[list[str]]
    """Cells of its table."""
    numbers: dict[str, Json]
    """Everything that it found, plain data."""
    figures: dict[str, str]
    """Caption -> name of a PNG file in the report's folder."""
