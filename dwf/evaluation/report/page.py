"""Reports as HTML pages that need nothing else: figures are inside them."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dwf.evaluation.report.columns import STATISTICS_COLUMNS, headings
from dwf.evaluation.report.fits import FIT_COLUMNS, fit_rows
from dwf.evaluation.report.report import Report
from dwf.evaluation.report.sets import NetworkSet
from dwf.evaluation.report.words import FIT_TEXT, MARK_RULES, MARKS_TEXT, PROFILE_TEXT
from dwf.plain import Json

_STYLE = """
:root { color-scheme: light dark; --text: #1d2430; --soft: #5b6573; --line: #d9dee5;
  --page: #fbfbf9; --mark: #fff4c2; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ee; --soft: #a3adba; --line: #39424e; --page: #171b21; --mark: #4a4216; } }
body { background: var(--page); color: var(--text); margin: 0 auto; max-width: 72rem;
  padding: 2.5rem 1.5rem 5rem; font: 1.02rem/1.6 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.1rem; font-weight: 600; color: var(--soft); margin: 0 0 1rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 0.8rem; }
p, li { max-width: 46rem; }
.headline { font-size: 1.4rem; line-height: 1.45; max-width: 52rem; margin: 0 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.35rem 0.5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 13rem; }
tr.samples td { background: var(--mark); font-weight: 600; }
tr.first-baseline td { border-top: 2px solid var(--soft); }
figure { margin: 1.8rem 0; }
figure img { background: white; border-radius: 6px; max-width: 100%; padding: 0.8rem;
  box-sizing: border-box; border: 1px solid var(--line); }
figcaption { color: var(--soft); font-size: 0.95rem; max-width: 46rem; margin-top: 0.4rem; }
details { margin: 0.6rem 0; } summary { cursor: pointer; }
details td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
"""

_EXPLAINED = {
    "Novelty against accuracy": "A generator that has learnt the zoo's distribution puts its "
    "networks where the held-out networks are: in the yellow corner. Copies lie in the grey "
    "band at the left, broken networks at the bottom. The tests of behaviour and units cannot be "
    "seen here.",
    "Accuracies of all networks": "Each dot is a network; none is left out.",
    "Map of originals and samples": "Only two of many directions: near-copies and lost variety can "
    "be seen here, novelty cannot.",
    "Asked for and drawn": "Each dot is a network. On the dotted line it is as it was asked for; "
    "of a condition that is not measured, the training network nearest to it is.",
    "Training curves": "How the zoo and the generators were trained.",
}


def write_page(
    report: Report, environment: dict[str, Json], *, figures: dict[str, Path], folder: Path
) -> str:
    """Return the page.

    Args:
        report: the numbers.
        environment: what ran it: `environment.json` of the run folder.
        figures: caption -> PNG file.
        folder: where the figures of its analyses lie.
    """
    body = [
        *beginning(report.name, report.headline),
        table(report.columns, report.table, kinds=_kinds(report.sets)),
        *paragraphs(report.notes, "soft"),
        *(
            figure(caption, file, explained=_EXPLAINED.get(caption, ""))
            for caption, file in figures.items()
        ),
        "<h2>Which tests are passed</h2>",
        *paragraphs([report.limits_text]),
        table(report.tests_columns, report.tests_table, kinds=_kinds(report.sets)),
        *_more_tables(report),
        *_profile(report),
        *_marks(report),
        *_fits(report),
        *_running_statistics(report),
        *_analyses(report, folder),
        "<h2>How to read this</h2>",
        bullets(report.words),
        "<h2>What was run</h2>",
        *paragraphs([f"{hardware(environment)} Seed of the baselines: {report.config['seed']}."]),
        *(details(title, facts) for title, facts in report.facts.items()),
        details("settings of this evaluation", report.config),
    ]
    return whole_page(f"{report.name}: how good, how new", body)


def whole_page(title: str, body: Sequence[str]) -> str:
    """Return a page of parts, each of them HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        "<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def beginning(name: str, headline: Sequence[str]) -> list[str]:
    """Return a report's name, and its headline with the first paragraph written large."""
    heading = f"<h1>Report: {escape(name)}</h1>"
    return [heading, *paragraphs(headline[:1], "headline"), *paragraphs(headline[1:])]


def paragraphs(texts: Sequence[str], kind: str = "") -> list[str]:
    """Return paragraphs of plain words, of a class of the style sheet."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return [f"{opening}{_text(each)}</p>" for each in texts]


def bullets(lines: Sequence[str]) -> str:
    """Return a list of plain words."""
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _text(words: str) -> str:
    return escape(words).replace("+-", "&plusmn;")


def table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], *, kinds: Sequence[str] | None = None
) -> str:
    """Return a table; each row may be of a class of the style sheet."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in heading) + "</tr>"]
    for cells, kind in zip(rows, kinds or [""] * len(rows), strict=True):
        shown = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        lines.append(f'<tr class="{kind}">{shown}</tr>')
    return '<div class="scroll"><table>' + "\n".join(lines) + "</table></div>"


def _kinds(sets: Sequence[NetworkSet]) -> list[str]:
    first_baseline = next((i for i, one in enumerate(sets) if one.is_baseline), None)
    kinds = ["samples" if one.family == "samples" else "" for one in sets]
    return ["first-baseline" if i == first_baseline else kind for i, kind in enumerate(kinds)]


def _more_tables(report: Report) -> list[str]:
    return [
        part
        for title, words, tables in report.more_tables
        for part in (
            f"<h2>{escape(title)}</h2>",
            *paragraphs([words]),
            *(table(*each) for each in tables),
        )
    ]


def _profile(report: Report) -> list[str]:
    if not report.profile_table:
        return []
    heading = "<h2>Under other limits</h2>"
    kinds = _kinds([one for one in report.sets if "profile" in one.summary])
    words = paragraphs([PROFILE_TEXT])
    return [heading, *words, table(report.profile_columns, report.profile_table, kinds=kinds)]


def _marks(report: Report) -> list[str]:
    if not report.reasons:
        return []
    return [
        "<h2>What the sets are</h2>",
        *paragraphs([MARKS_TEXT]),
        bullets(MARK_RULES),
        *paragraphs(["These sets:"]),
        bullets(report.reasons),
    ]


def _fits(report: Report) -> list[str]:
    rows = fit_rows(report.fits)
    if not rows:
        return []
    heading = "<h2>Training against held-out networks</h2>"
    return [heading, *paragraphs([FIT_TEXT]), table(FIT_COLUMNS, rows)]


def _running_statistics(report: Report) -> list[str]:
    if not report.statistics_table:
        return []
    compared = [one for one in report.sets if "batchnorm" in one.summary]
    return [
        "<h2>Running statistics of BatchNorm</h2>",
        *paragraphs([report.statistics_text]),
        table(headings(STATISTICS_COLUMNS), report.statistics_table, kinds=_kinds(compared)),
    ]


def _analyses(report: Report, folder: Path) -> list[str]:
    parts: list[str] = []
    for found in report.analyses.values():
        parts += [f"<h2>{escape(found.title)}</h2>", *paragraphs(found.words)]
        if found.rows:
            parts.append(table(found.columns, found.rows))
        parts += [figure(caption, folder / file) for caption, file in found.figures.items()]
    return parts


def figure(caption: str, file: Path, *, explained: str = "") -> str:
    """Return a PNG file as a figure, with its caption and what it shows."""
    data = base64.b64encode(file.read_bytes()).decode()
    text = f"<b>{escape(caption)}.</b> {escape(explained)}"
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def hardware(environment: dict[str, Json]) -> str:
    """Return in words what ran a report: `environment.json` of its run folder."""
    versions = environment.get("packages", {})
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    commit = environment.get("commit") or "unknown (not run from a checkout)"
    return (
        f"Commit {commit}; {environment['cores']} cores, {environment['system']}; Python "
        f"{environment['python']}, {packages}."
    )


def details(title: str, facts: dict[str, Json]) -> str:
    """Return facts that a reader may unfold."""
    rows = "".join(
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>"
        for key, value in facts.items()
    )
    return f"<details><summary>{escape(title)}</summary><table>{rows}</table></details>"
