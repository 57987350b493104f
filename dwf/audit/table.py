"""The outcome of an audit: a line for each row and each null arm, in one table.

audits/NAME/audit.json   all lines; equal audits write equal bytes
audits/NAME/audit.md     the tables;  audit.html: one page with the figure;  audit.png
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from dwf.audit.config import PublishedConfig
from dwf.evaluation.measure import CONFIDENCE
from dwf.evaluation.report import (
    COLUMNS,
    MARKS,
    PROFILE_COLUMNS,
    PROFILE_TEXT,
    Column,
    NetworkSet,
    accuracy_error,
    cells,
    headings,
    hints,
    markdown_table,
    percent,
    row_kinds,
    shown,
)
from dwf.files import read_json, told_by
from dwf.plain import Json, for_markdown
from dwf.run_folder import write_json, write_text

FILE = "audit.json"
FORMAT, VERSION = "dwf-audit", 1
HOW_TO_READ = (
    "Every network of every row counts. The columns are those of the zoo's own report, which "
    "explains them and says why each set has its mark.",
    "Steps are those that the budget allows, of those that the generator's settings file asks for. "
    "Published is the accuracy that the method reached where it was published, beside that of the "
    "networks it learnt from.",
    "Reached: a row's networks stay no further below their originals than the published ones below "
    "theirs (by more than 1.96 standard errors). Under budget: they do, and the row was trained "
    "for fewer steps than its file asks for, so that it says nothing against the method. Below: "
    "they do, though it was trained to the end.",
)


@dataclass(frozen=True)
class Line:
    """A line of the table: a row of the audit, originals, held-out networks, or a null arm."""

    zoo: str
    one: NetworkSet
    """The set, of whose networks accuracy and distance are kept; of family `samples`: a row."""
    steps: dict[str, int] = field(default_factory=dict)
    """Part that was trained -> steps."""
    full_steps: dict[str, int] = field(default_factory=dict)
    """Part -> steps that its settings file asks for."""
    published: PublishedConfig | None = None
    """Accuracy that the method reached where it was published."""
    verdict: str = ""
    """`reached`, `under budget` or `below`, against that; empty where there is none."""

    @classmethod
    def of(cls, zoo: str, one: NetworkSet) -> "Line":
        """Return the line of a row of a report."""
        kept = {name: one.networks[name] for name in (one.scored, "distance_ratio")}
        return cls(zoo, replace(one, networks=kept))

    @property
    def is_row(self) -> bool:
        """Whether it is a row of the audit."""
        return self.one.family == "samples"

    def judged(self, published: PublishedConfig | None, originals: NetworkSet) -> "Line":
        """Return it held against what was published; see `HOW_TO_READ`.

        Args:
            published: None where nothing is known.
            originals: the training networks.
        """
        if published is None:
            return self
        shortfall = originals.accuracy["mean"] - self.one.accuracy["mean"]
        allowed = published.shortfall + CONFIDENCE * accuracy_error(self.one, originals)
        is_cut = self.steps != self.full_steps
        verdict = "reached" if shortfall <= allowed else "under budget" if is_cut else "below"
        return replace(self, published=published, verdict=verdict)


@dataclass(frozen=True)
class Failure:
    """A row that has no networks."""

    zoo: str
    title: str
    reason: str


@dataclass(frozen=True)
class AuditReport:
    """An audit's outcome."""

    name: str
    config: dict[str, Json]
    lines: tuple[Line, ...]
    """Lines of each zoo in turn: originals, held-out networks, rows, null arms."""
    failed: tuple[Failure, ...]
    headline: tuple[str, ...]
    """Sentences on what the numbers say."""

    @property
    def rows(self) -> list[Line]:
        """The rows of the audit that have networks."""
        return [line for line in self.lines if line.is_row]

    @property
    def zoos(self) -> list[str]:
        """Names of the zoos, in order."""
        return list(dict.fromkeys(line.zoo for line in self.lines))

    def of_zoo(self, zoo: str) -> list[Line]:
        """Return the lines of a zoo."""
        return [line for line in self.lines if line.zoo == zoo]

    def tables(self, zoo: str) -> dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
        """Return title -> (heading, cells) of a zoo's tables, in reading order."""
        return {
            title: (headings(columns, "test"), cells(columns, some))
            for title, (columns, some) in self._columns(zoo).items()
        }

    def hints(self, zoo: str) -> dict[str, tuple[str, ...]]:
        """Return title -> how to read each column of that table."""
        return {title: hints(columns) for title, (columns, _) in self._columns(zoo).items()}

    def kinds(self, zoo: str) -> dict[str, list[str] | None]:
        """Return title -> how a page shows each row of that table; None: all alike."""
        return {title: _kinds(lines) for title, (_, lines) in self._columns(zoo).items()}

    def _columns(self, zoo: str) -> dict[str, tuple[Sequence[Column["Line"]], list["Line"]]]:
        lines = self.of_zoo(zoo)
        rows = [line for line in lines if line.is_row]
        profile = [line for line in lines if "profile" in line.one.summary]
        return {
            "All rows and null arms": (shown(MAIN, lines), lines),
            "What each row was trained for, and what was published": (TRAINED, rows),
            "Under other limits": (tuple(map(_of_set, PROFILE_COLUMNS)), profile),
        }

    def save(self, folder: Path) -> None:
        """Write `audit.md`, then `audit.json`."""
        write_text(folder / "audit.md", for_markdown(self.markdown()))
        write_json(folder / FILE, {"format": FORMAT, "version": VERSION} | asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "AuditReport":
        """Return what `save` wrote."""
        content = read_json(folder / FILE, keys=("format", "version"))
        with told_by(folder / FILE):
            del content["format"], content["version"]
            content["lines"] = tuple(_read_line(told) for told in content["lines"])
            content["failed"] = tuple(Failure(**told) for told in content["failed"])
            content["headline"] = tuple(content["headline"])
            return cls(**content)

    def markdown(self) -> str:
        """Return it as Markdown."""
        parts = [f"# Audit: {self.name}", *self.headline]
        for zoo in self.zoos:
            parts += [f"## {zoo}"]
            for title, (heading, rows) in self.tables(zoo).items():
                parts += [f"### {title}", markdown_table(heading, rows)]
        return "\n\n".join([*parts, "## How to read this", *HOW_TO_READ, PROFILE_TEXT]) + "\n"


def _kinds(lines: Sequence[Line]) -> list[str] | None:
    are_all_rows = all(line.is_row for line in lines)
    return None if are_all_rows else row_kinds([line.one for line in lines])


def _read_line(told: dict[str, Json]) -> Line:
    published = told.pop("published")
    return Line(
        **told | {"one": NetworkSet(**told["one"])},
        published=None if published is None else PublishedConfig(**published),
    )


def sentences(zoo: str, lines: Sequence[Line]) -> tuple[str, ...]:
    """Return what the lines of a zoo say, in sentences."""
    rows = [line for line in lines if line.is_row]
    arms = [line.one for line in lines if line.one.is_baseline]
    by_mark = {mark: [row.one.title for row in rows if row.one.mark == mark] for mark in MARKS}
    each = "; ".join(f"{mark}: {', '.join(names)}" for mark, names in by_mark.items() if names)
    best = max(arms, key=lambda one: one.share)
    null = "No network of a null arm is good and novel."
    if best.share:
        null = (
            f"The best null arm is {best.title}, {percent(best.share)} of whose networks are good "
            "and novel."
        )
    count = f"{len(rows)} row{'s' * (len(rows) != 1)}"
    said = [f"{zoo}, {count} by their marks: {each or 'none'}. {null}"]
    late = [row.one.title for row in rows if row.verdict == "under budget"]
    if late:
        said.append(
            f"{zoo}, under budget: {', '.join(late)}. They stay further below the originals than "
            "was published, with fewer steps than their settings files ask for."
        )
    return tuple(said)


# --- columns -------------------------------------------------------------------------------------


def _of_set(column: Column[NetworkSet]) -> Column[Line]:
    """Return a column of a report as one of an audit."""
    return replace(column, cell=partial(_cell, column))


def _cell(column: Column[NetworkSet], line: Line) -> str:
    return column.cell(line.one)


def _steps(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{part} {count:,}" for part, count in counts.items()) or "-"


def _accuracy(line: Line) -> str:
    told = line.published
    if told is None:
        return "-"
    return f"{100 * told.accuracy:.4g} of {100 * told.originals:.4g} % on {told.networks}"


_VERDICT: Column[Line] = Column("against published", lambda line: line.verdict or "-")
MAIN: tuple[Column[Line], ...] = (*map(_of_set, COLUMNS), _VERDICT)
"""The main table: those of a report, and one more."""
TRAINED: tuple[Column[Line], ...] = (
    Column("row", lambda line: line.one.title),
    Column("steps", lambda line: _steps(line.steps)),
    Column("its file asks for", lambda line: _steps(line.full_steps)),
    Column("published", _accuracy),
    Column("source", lambda line: line.published.source if line.published else "-"),
    _VERDICT,
)
"""Columns of steps, and of the accuracy that a row's method reached where it was published."""
