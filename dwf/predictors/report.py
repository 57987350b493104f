"""A report of an experiment: what each row tells of the test networks, in one table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from dwf.plain import Json
from dwf.predictors.told import Told, Truth
from dwf.run_folder import write_json

FILE = "report.json"


@dataclass(frozen=True)
class Row:
    """Scores of a row under a seed on one property."""

    name: str
    seed: int
    property: str
    mae: float
    tau: float | None


@dataclass(frozen=True)
class Report:
    """Scores of every row."""

    name: str
    rows: tuple[Row, ...]

    @classmethod
    def load(cls, folder: Path) -> "Report":
        """Read what `write_report` wrote."""
        told = json.loads((folder / FILE).read_text())
        return cls(told["name"], tuple(Row(**row) for row in told["rows"]))

    def lines(self) -> list[str]:
        """Return what it says, for a terminal."""
        return [
            ", ".join(f"{name} {value}" for name, value in vars(row).items()) for row in self.rows
        ]


def write_report(
    folder: Path,
    name: str,
    *,
    truth: Truth,
    told: Sequence[Told],
    facts: Mapping[str, dict[str, Json]] | None = None,
    environment: dict[str, Json] | None = None,
    seed: int = 0,
) -> Report:
    """Write the report of an experiment and return it."""
    rows = []
    for one in told:
        for place, property_ in enumerate(truth.properties):
            said_N, true_N = one.values_NP[:, place], truth.values_NP[:, place]
            tau = kendalltau(said_N, true_N).statistic
            rows.append(
                Row(
                    name=one.row,
                    seed=one.seed,
                    property=property_,
                    mae=round(float(np.abs(said_N - true_N).mean()), 6),
                    tau=None if np.isnan(tau) else round(float(tau), 6),
                )
            )
    write_json(folder / FILE, {"name": name, "rows": [asdict(row) for row in rows]})
    return Report(name, tuple(rows))
