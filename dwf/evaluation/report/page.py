"""The page of a report: it needs nothing else, as figures are inside it."""

from html import escape
from pathlib import Path

from dwf.evaluation.report.columns import (
    PROFILE_COLUMNS,
    STATISTICS_COLUMNS,
    TEST_COLUMNS,
    headings,
    hints,
    shown,
)
from dwf.evaluation.report.fits import FIT_COLUMNS
from dwf.evaluation.report.html import (
    beginning,
    bullets,
    figure,
    folded,
    legend,
    paragraphs,
    table,
    whole_page,
)
from dwf.evaluation.report.record import Record
from dwf.evaluation.report.report import Report
from dwf.evaluation.report.sets import row_kinds
from dwf.evaluation.report.words import FIT_TEXT, LEGEND, MARK_RULES, MARKS_TEXT, PROFILE_TEXT

_EXPLAINED = {
    "Novelty against accuracy": "A generator that has learnt the zoo's distribution puts its "
    "networks where the held-out networks are: in the yellow corner. Copies lie in the grey "
    "band at the left, broken networks at the bottom. The tests of behaviour and units cannot be "
    "seen here. Where accuracies take few values, dots are moved a little up and down, so that "
    "they do not hide each other.",
    "Accuracies of all networks": "Each dot is a network; none is left out. Bar: median. Dotted "
    "line: good enough (mean of the originals less two standard deviations). After each name: the "
    "number of networks.",
    "Map of originals and samples": "Only two of many directions: near-copies and lost variety can "
    "be seen here, novelty cannot.",
    "Asked for and drawn": "Each dot is a network. On the dotted line it is as it was asked for; "
    "of a condition that is not measured, the training network nearest to it is.",
    "Training curves": "Means over the zoo's networks, where several epochs were kept of them, and "
    "the losses of generators that learn by steps.",
}


def write_page(report: Report, record: Record, *, figures: dict[str, Path], folder: Path) -> str:
    """Return the page.

    Args:
        report: the numbers.
        record: what made it, and where the rest lies.
        figures: caption -> PNG file.
        folder: where the figures of its analyses lie.
    """
    name, *headline = beginning(report.name, report.headline)
    kinds, tests = row_kinds(report.sets), shown(TEST_COLUMNS, report.sets)
    body = [
        name,
        *record.top(),
        *headline,
        legend(LEGEND),
        table(report.columns, report.table, kinds=kinds, hints=report.hints),
        *paragraphs(report.notes, "soft"),
        *(
            figure(caption, file, explained=_EXPLAINED.get(caption, ""))
            for caption, file in figures.items()
        ),
        "<h2>Which tests are passed</h2>",
        *paragraphs([report.limits_text]),
        table(report.tests_columns, report.tests_table, kinds=kinds, hints=hints(tests)),
        *_more_tables(report),
        *_profile(report),
        *_marks(report),
        *_fits(report),
        *_running_statistics(report),
        *_analyses(report, folder),
        "<h2>How to read this</h2>",
        bullets(report.words),
        *record.bottom(
            f"Seed of the baselines: {report.config['seed']}.",
            facts=report.facts | {"settings of this evaluation": report.config},
        ),
    ]
    return whole_page(f"{report.name}: how good, how new", body)


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
    kinds = row_kinds([one for one in report.sets if "profile" in one.summary])
    words = paragraphs([PROFILE_TEXT])
    rows = table(
        report.profile_columns, report.profile_table, kinds=kinds, hints=hints(PROFILE_COLUMNS)
    )
    return [heading, *words, rows]


def _marks(report: Report) -> list[str]:
    if not report.reasons:
        return []
    said = list(zip(report.marked, report.reasons, strict=True))
    baselines = [words for one, words in said if one.is_baseline]
    return [
        "<h2>What the sets are</h2>",
        *paragraphs([MARKS_TEXT]),
        bullets(MARK_RULES),
        *paragraphs(["These sets:"]),
        bullets([words for one, words in said if not one.is_baseline]),
        folded(f"{len(baselines)} baselines", bullets(baselines)),
    ]


def _fits(report: Report) -> list[str]:
    rows = report.fit_table
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
        table(headings(STATISTICS_COLUMNS), report.statistics_table, kinds=row_kinds(compared)),
    ]


def _analyses(report: Report, folder: Path) -> list[str]:
    parts: list[str] = []
    for found in report.analyses.values():
        parts += [f"<h2>{escape(found.title)}</h2>", *paragraphs(found.words)]
        if found.rows:
            parts.append(table(found.columns, found.rows))
        parts += [figure(caption, folder / file) for caption, file in found.figures.items()]
    return parts
