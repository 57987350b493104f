"""Predictors on other networks than theirs: `dwf transfer reports/A reports/B --to reports/AB`."""

from pathlib import Path
from typing import Annotated

from dwf.arguments import Argument
from dwf.errors import ConfigError
from dwf.names import folder_said
from dwf.predictors.config import Group

Reports = Annotated[tuple[Path, ...], Argument(is_positional=True, metavar="REPORT")]


def transfer(reports: Reports, *, to: Path, by: Group = "zoo") -> None:
    """Join reports of rows that learnt from different networks: who tells whose how well.

    Args:
        reports: folders or names of reports, each named after what its rows learnt from.
        to: folder to write transfer.md and transfer.html to; it may not be there.
        by: parts of the test networks that become columns.
    """
    from dwf.predictors.report import Report, write_transfer

    reports = tuple(folder_said(report, "reports") for report in reports)
    if len({folder.name for folder in reports}) < max(2, len(reports)):
        names = ", ".join(map(str, reports)) or "none"
        raise ConfigError(f"{names}: give two or more reports, each of a folder of another name")
    if to.exists():
        raise ConfigError(f"{to} is there already: give another --to, or remove it")
    found = {folder.name: Report.load(folder) for folder in reports}
    write_transfer(to, to.name, reports=found, by=by)
    print((to / "transfer.md").read_text(encoding="utf-8"))
