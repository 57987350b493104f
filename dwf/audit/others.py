"""Rows of networks that somebody else's generator made: files, or samples of another report."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dwf.audit.config import RowConfig
from dwf.errors import ConfigError, DwfError
from dwf.evaluation.measure import Limits
from dwf.evaluation.network_files import open_samples
from dwf.evaluation.report import NetworkSet, Report, mark, validate_report
from dwf.plain import Json
from dwf.zoo.store import Zoo

_SAME = 1e-4
"""Relative difference of limits that two machines' rounding explains."""


@dataclass(frozen=True)
class Others:
    """The rows of a zoo that were not trained here."""

    folders: dict[str, str] = field(default_factory=dict)
    """Row -> files of networks, which a report takes as samples."""
    reports: dict[str, tuple[Path, dict[str, Json]]] = field(default_factory=dict)
    """Row -> a report.json and what it says, whose samples are taken as they are."""
    failed: dict[str, str] = field(default_factory=dict)
    """Row -> why its networks cannot be had."""

    def joined(self, report: Report) -> tuple[list[NetworkSet], dict[str, str]]:
        """Return the sets of a report and those of the others' reports, by the same marks.

        Returns:
            The sets, samples before null arms; row -> why its report does not fit.
        """
        wrong: dict[str, str] = {}
        theirs: list[NetworkSet] = []
        for row, (file, told) in self.reports.items():
            try:
                theirs += _samples_of(row, file, told, report)
            except ConfigError as error:
                wrong[row] = str(error)
        whole = [one for one in report.sets if not one.subset]
        theirs = [
            replace(one, summary=one.summary | {"mark": vars(mark(one, whole))}) for one in theirs
        ]
        first = next(i for i, one in enumerate(report.sets) if one.is_baseline)
        return [*report.sets[:first], *theirs, *report.sets[first:]], wrong


def find_others(rows: Mapping[str, RowConfig], root: Path, *, zoo: str) -> Others:
    """Look at all rows that are not trained here; what is wrong with one concerns it alone.

    Args:
        rows: the rows of a zoo, by name.
        root: folder that holds `zoos/`.
        zoo: name of the zoo that they are held against.
    """
    found, opened = Others(), Zoo.open(root / "zoos" / zoo)
    for name, row in rows.items():
        if row.samples is None:
            continue
        path = Path(row.samples)
        try:
            if path.suffix == ".json":
                found.reports[name] = path, validate_report(path)
            else:
                with open_samples((str(path.absolute()),), opened, root=root):
                    found.folders[name] = str(path.absolute())
        except DwfError as error:
            found.failed[name] = str(error)
    return found


def _samples_of(row: str, file: Path, told: dict[str, Json], report: Report) -> list[NetworkSet]:
    """Return the samples of another report; refuse one on another zoo, or on other images."""
    mine, theirs = (Limits.from_json(each) for each in (report.limits, told["limits"]))
    pairs = [(mine.accuracy, theirs.accuracy), (mine.unit, theirs.unit)]
    pairs.append((mine.behaviour_unit, theirs.behaviour_unit))
    if not all(math.isclose(a, b, rel_tol=_SAME) for a, b in pairs):
        raise ConfigError(
            f"{file} is on another zoo: its limit of accuracy is {theirs.accuracy:.6g}, its unit "
            f"of distance {theirs.unit:.6g}; this zoo has {mine.accuracy:.6g} and {mine.unit:.6g}: "
            "evaluate those networks against this zoo, or give their files as samples"
        )
    sets = [NetworkSet(**one) for one in told["sets"] if one["family"] == "samples"]
    if not sets or any(report.of("originals")[0].scored != one.scored for one in sets):
        raise ConfigError(
            f"{file} has {len(sets)} sets of samples, scored on {told['config']['split']} images: "
            f"expected one or more, on {report.config['split']} images: make it with "
            f"dwf evaluate --split {report.config['split']}"
        )
    if len(sets) == 1:
        return [replace(sets[0], title=row)]
    return [replace(one, title=f"{row}: {one.title}") for one in sets]
