"""Transfer: rows that learnt from one zoo, told networks of others; a matrix for each row.

transfer.md, transfer.html, *.png    of reports that were made on several zoos each

A report stands for what its rows learnt from; its test networks are split by zoo or architecture.

Shape suffixes: R reports (learnt from), C groups of test networks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dwf.errors import ConfigError
from dwf.evaluation.report import (
    STYLE,
    Width,
    beginning,
    figure,
    markdown_table,
    number_cell,
    paragraphs,
    save_figures,
    table,
    whole_page,
)
from dwf.plain import for_markdown
from dwf.predictors.compare import ALL
from dwf.predictors.config import Group
from dwf.predictors.report.figures import heat_map
from dwf.predictors.report.report import Report
from dwf.run_folder import write_text

WORDS = (
    "A line is what a row learnt from, a column the test networks that it tells. Tau, mean over "
    "seeds, and in brackets its 95 % interval. No network of a column was learnt from."
)


@dataclass(frozen=True)
class Transfer:
    """Tau of one row on one property: learnt from here, told there."""

    row: str
    """Name of the row."""
    property: str
    """Name of the property."""
    learnt_from: tuple[str, ...]
    """Names of the reports, R of them."""
    told: tuple[str, ...]
    """Names of the zoos or architectures, C of them."""
    tau_RC: np.ndarray
    """Mean tau over seeds; NaN where it is not known."""
    cells: tuple[tuple[str, ...], ...]
    """The same with intervals, in words."""

    @property
    def title(self) -> str:
        """The row and the property that the matrix is about."""
        return f"{self.row}: {self.property}"


def transfers(reports: Mapping[str, Report], *, by: Group = "zoo") -> list[Transfer]:
    """Return the matrices of all rows and properties that every report has.

    Args:
        reports: what was learnt from -> report on the test networks of one zoo or several. Of a
            report on one group alone, this group bears the report's own name.
        by: what test networks are grouped by.

    Raises:
        ConfigError: no row, or no property, stands in all reports.
    """
    found = list(reports.values())
    rows = [r.name for r in found[0].rows if all(_has(other, r.name) for other in found)]
    names = [n for n in found[0].properties if all(n in other.properties for other in found)]
    if not rows or not names:
        raise ConfigError(
            f"the reports {', '.join(reports)} have no {'row' if names else 'property'} in common: "
            "give reports of experiments with rows of the same names on the same properties"
        )
    groups = {name: _groups(report, name, by) for name, report in reports.items()}
    told = tuple(dict.fromkeys(group for each in groups.values() for group in each))
    return [_transfer(reports, groups, row, name, told) for name in names for row in rows]


def write_transfer(
    folder: Path, name: str, *, reports: Mapping[str, Report], by: Group = "zoo"
) -> list[Transfer]:
    """Write the matrices as Markdown and as a page; return them.

    Args:
        folder: where to write.
        name: what the reports are about together.
        reports: see `transfers`.
        by: what test networks are grouped by.

    Raises:
        ConfigError: see `transfers`.
    """
    made = transfers(reports, by=by)
    folder.mkdir(parents=True, exist_ok=True)
    parts, body = [f"# Transfer: {name}", WORDS], beginning(name, ["Transfer"])
    body += paragraphs([WORDS])
    figures = {
        f"{place}-{re.sub('[^a-zA-Z0-9]+', '-', one.title)}.png": (one.title, partial(_heat, one))
        for place, one in enumerate(made)
    }
    with matplotlib.rc_context(STYLE):
        drawn = save_figures(figures, folder)
    for one in made:
        heading = ("learnt from", *one.told)
        rows = [(name, *line) for name, line in zip(one.learnt_from, one.cells, strict=True)]
        parts += [f"## {one.title}", markdown_table(heading, rows)]
        body += [f"<h2>{escape(one.title)}</h2>", table(heading, rows)]
        body += [figure(one.title, drawn[one.title])]
    write_text(folder / "transfer.md", for_markdown("\n\n".join(parts) + "\n"))
    write_text(folder / "transfer.html", whole_page(f"{name}: transfer", body))
    return made


def _heat(one: Transfer, width: Width) -> Figure:
    return heat_map(one.tau_RC, one.learnt_from, columns=one.told, width=width, title="tau")


def _has(report: Report, row: str) -> bool:
    return any(one.name == row for one in report.rows)


def _groups(report: Report, name: str, by: Group) -> dict[str, str]:
    """Return group -> subset of a report."""
    start = f"{by} "
    found = {s.removeprefix(start): s for s in report.subsets if s.startswith(start)}
    return found or {name: ALL}


def _transfer(
    reports: Mapping[str, Report],
    groups: Mapping[str, Mapping[str, str]],
    row: str,
    name: str,
    told: tuple[str, ...],
) -> Transfer:
    tau, cells = [], []
    for learnt_from, report in reports.items():
        entries = [
            report.entry(row, name, subset=groups[learnt_from][group])
            if group in groups[learnt_from]
            else None
            for group in told
        ]
        scores = [entry and entry.scores["tau"] for entry in entries]
        tau.append([np.nan if s is None or s.mean is None else s.mean for s in scores])
        cells.append(
            tuple(
                "-"
                if s is None or s.mean is None
                else f"{s.mean:.3f} [{number_cell(s.low)}, {number_cell(s.high)}]"
                for s in scores
            )
        )
    return Transfer(row, name, learnt_from=tuple(reports), told=told, tau_RC=np.array(tau),
                    cells=tuple(cells))  # fmt: skip
