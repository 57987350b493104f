"""A report of an experiment: what each row tells of the test networks, in one table."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from dwf.plain import Json
from dwf.predictors.told import Told, Truth
from dwf.run_folder import write_json

FILE = "report.json"


@dataclass(frozen=True)
class Report:
    """Scores of every row."""

    name: str
    rows: tuple[dict[str, Json], ...]

    @classmethod
    def load(cls, folder: Path) -> "Report":
        """Read what `write_report` wrote."""
        told = json.loads((folder / FILE).read_text())
        return cls(told["name"], tuple(told["rows"]))

    def lines(self) -> Iterator[str]:
        """Yield what it says, for a terminal."""
        for row in self.rows:
            yield ", ".join(f"{name} {value}" for name, value in row.items())


def write_report(folder: Path, name: str, *, truth: Truth, told: Sequence[Told]) -> Report:
    """Write the report of an experiment and return it."""
    rows = []
    for one in told:
        for place, property_ in enumerate(truth.properties):
            said_N, true_N = one.values_NP[:, place], truth.values_NP[:, place]
            tau = kendalltau(said_N, true_N).statistic
            rows.append(
                {
                    "row": one.row,
                    "seed": one.seed,
                    "property": property_,
                    "mae": round(float(np.abs(said_N - true_N).mean()), 6),
                    "tau": None if np.isnan(tau) else round(float(tau), 6),
                }
            )
    write_json(folder / FILE, {"name": name, "rows": rows})
    return Report(name, tuple(rows))
