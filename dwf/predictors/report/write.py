"""Making a report: figures, tables, pictures, and the page that holds them all."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from dwf.evaluation.report import (
    Record,
    beginning,
    bullets,
    details,
    figure,
    legend,
    markdown_table,
    paragraphs,
    table,
    whole_page,
)
from dwf.plain import Json, for_markdown
from dwf.predictors.compare import compare
from dwf.predictors.report.figures import draw, explained
from dwf.predictors.report.report import Report, Row
from dwf.predictors.report.tables import LEGEND, Table, headline, how_to_read, tables
from dwf.predictors.told import Told, Truth
from dwf.run_folder import write_text


def write_report(
    folder: Path,
    name: str,
    *,
    truth: Truth,
    told: Sequence[Told],
    baselines: Collection[str] = (),
    facts: Mapping[str, dict[str, Json]] | None = None,
    record: Record | None = None,
    better_by: str = "test_accuracy",
    seed: int = 0,
) -> Report:
    """Score all rows, and write `report.json`, `report.md`, `report.html` and pictures.

    Args:
        folder: where to write.
        name: of the experiment.
        truth: the test networks.
        told: what each row said of them, under each seed.
        baselines: names of rows that are to be beaten; a row that is shown columns alone always is.
        facts: title -> what was told and by whom, for the reader.
        record: what ran it, and where the rest lies.
        better_by: property of which the better half is taken; none where it is not told.
        seed: of the draws of intervals and ceilings.

    Raises:
        ConfigError: there are too few networks, or a row does not tell a number of each of them.
    """
    told = sorted(told, key=lambda one: one.seed)  # stable: rows stay in their order
    report = score_report(
        name, truth, told=told, baselines=baselines, facts=facts, better_by=better_by, seed=seed
    )
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw(report, folder, truth=truth, told=told)
    write_text(folder / "report.html", page(report, drawn, record=record))
    write_text(folder / "report.md", for_markdown(markdown(report, drawn)))
    report.save(folder)
    return report


def score_report(
    name: str,
    truth: Truth,
    *,
    told: Sequence[Told],
    baselines: Collection[str] = (),
    facts: Mapping[str, dict[str, Json]] | None = None,
    better_by: str = "test_accuracy",
    seed: int = 0,
) -> Report:
    """Return what `write_report` writes, without writing it."""
    marked = {*baselines, *(one.row for one in told if one.access == "columns")}
    entries, targets = compare(truth, told, baselines=marked, better_by=better_by, seed=seed)
    return Report(
        name,
        rows=tuple(_rows(told, marked)),
        entries=tuple(entries),
        targets=tuple(targets),
        facts=dict(facts or {}),
        seed=seed,
    )


def _rows(told: Sequence[Told], baselines: Collection[str]) -> list[Row]:
    names = dict.fromkeys(one.row for one in told)
    rows = [Row.of([one for one in told if one.row == name], baselines) for name in names]
    return sorted(rows, key=lambda row: row.is_baseline)


def markdown(report: Report, drawn: Mapping[str, Path]) -> str:
    """Return a report as Markdown; pictures are beside it."""
    parts = [f"# Predictors: {report.name}", *headline(report)]
    for each in tables(report):
        parts += [f"## {each.title}", *([each.words] if each.words else [])]
        parts += [markdown_table(each.heading, each.rows)]
    parts += [f"![{caption}]({file.name})" for caption, file in drawn.items()]
    parts += ["## How to read this", "\n".join(f"- {words}" for words in how_to_read(report))]
    for title, facts in report.facts.items():
        rows = [(str(key), str(value)) for key, value in facts.items()]
        parts += [f"## {title}", markdown_table(("fact", "value"), rows)]
    return "\n\n".join(parts) + "\n"


def page(report: Report, drawn: Mapping[str, Path], *, record: Record | None) -> str:
    """Return a report as one HTML page that needs nothing else."""
    made = list(tables(report))
    main = len(report.properties)
    name, *said = beginning(report.name, list(headline(report)))
    body = [name, *(record.top() if record else []), *said, legend(LEGEND)]
    for each in made[:main]:
        body += _table(each)
    body += [figure(caption, file, explained=explained(caption)) for caption, file in drawn.items()]
    for each in made[main:]:
        body += _table(each)
    body += ["<h2>How to read this</h2>", bullets(how_to_read(report))]
    facts = report.facts | {f"row {row.name}": row.facts for row in report.rows if row.facts}
    if record:
        body += record.bottom(facts=facts)
    else:
        body += ["<h2>What was run</h2>", *(details(title, told) for title, told in facts.items())]
    return whole_page(f"{report.name}: properties told from weights", body)


def _table(one: Table) -> Iterator[str]:
    kinds = None
    if one.baselines:
        first = one.baselines.index(True) if True in one.baselines else None
        kinds = ["first-baseline" if r == first else "" for r in range(len(one.rows))]
    yield f"<h2>{escape(one.title)}</h2>"
    yield from paragraphs([one.words] if one.words else [])
    yield table(one.heading, one.rows, kinds=kinds, hints=one.hints)
