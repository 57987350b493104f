"""A report on predictors as rows of a summary of several pipelines."""

from collections.abc import Iterator
from pathlib import Path

from dwf.plain import Json
from dwf.predictors.report import Report
from dwf.predictors.scores import METRICS


def rows(root: Path, name: str) -> Iterator[dict[str, Json]]:
    """Yield a row for each row and property of a finished report; else none.

    Args:
        root: folder that holds reports/.
        name: of the report.
    """
    folder = root / "reports" / name
    if not (folder / "report.json").exists():
        return
    report = Report.load(folder)
    for property_ in report.properties:
        target = report.target(property_)
        for row in report.rows:
            entry = report.entry(row.name, property_)
            if entry is None:
                continue
            yield {
                "report": name,
                "property": property_,
                "row": row.label,
                "is shown": row.access_words,
                "n": entry.n,
                "seeds": len(row.seeds),
                **{metric: entry.scores[metric].mean for metric in METRICS},
                "+- tau": entry.scores["tau"].std,
                "ceiling": target.ceiling.tau,
                "tau over ceiling": report.over_ceiling(entry),
            }
