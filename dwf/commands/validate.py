"""Reports that others wrote: `dwf validate REPORT.JSON`."""

from pathlib import Path
from typing import Annotated

from dwf.arguments import Argument

Report = Annotated[Path, Argument(is_positional=True, metavar="REPORT.JSON")]


def validate(file: Report) -> None:
    """Hold a report.json to the schema of reports, and its statistics to its networks' numbers.

    Args:
        file: the report.json, also one that adds a generator of somebody else's to an audit.
    """
    from dwf.evaluation.report import validate_report

    told = validate_report(file)
    sets = ", ".join(f"{one['title']} ({one['summary']['n']})" for one in told["sets"])
    print(f"{file}: {told['format']} {told['version']}, {len(told['sets'])} sets: {sets}")
