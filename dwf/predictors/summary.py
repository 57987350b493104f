"""A report on predictors as rows of a summary of several pipelines."""

from collections.abc import Iterator
from pathlib import Path

from dwf.plain import Json
from dwf.predictors.report import FILE, Report


def rows(root: Path, name: str) -> Iterator[dict[str, Json]]:
    """Yield a row for each row and property of a finished report; else none.

    Args:
        root: folder that holds reports/.
        name: of the report.
    """
    folder = root / "reports" / name
    if not (folder / FILE).exists():
        return
    for row in Report.load(folder).rows:
        yield {"report": name, "property": row.property, "row": row.name, "tau": row.tau}
