"""The outcome of an experiment on predictors: rows, figures, ceilings; JSON of a fixed schema.

report.json   all figures; equal inputs write equal bytes
report.md     the tables;  report.html: one page with the pictures;  *.png
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dwf.evaluation.report import Schema
from dwf.plain import Json
from dwf.predictors.compare import ALL, CHOSEN, Entry, Target
from dwf.predictors.invariance import TOLERANCE
from dwf.predictors.told import Told
from dwf.run_folder import write_json

FILE = "report.json"
SCHEMA = Schema(
    "dwf-predictors",
    3,
    file=Path(__file__).with_name("report.schema.json"),
    wanted="give the folder of a report",
    again="make it again with dwf predictor --evaluate-only",
)


@dataclass(frozen=True)
class Row:
    """A row of the table, whatever the property."""

    name: str
    """Name of the row."""
    access: str
    """How much of a network it is shown: `columns`, `weights` or `networks`."""
    invariances: tuple[str, ...]
    """Symmetries that it claims change no prediction."""
    changes: dict[str, float]
    """Symmetry -> largest change of a prediction that was found, in units of the property, over all
    seeds; of those that were tried."""
    is_baseline: bool
    """Whether it is to be beaten."""
    seeds: tuple[int, ...]
    """Seeds that it was fitted under."""
    seconds: dict[str, float]
    """Seconds of `fit` and `predict`, means over seeds."""
    facts: dict[str, Json]
    """Choices and measurements of its fit, under the first seed."""

    @classmethod
    def of(cls, each: Sequence[Told], baselines: Collection[str]) -> "Row":
        """Return it from what it told under each seed."""
        first, changes = each[0], dict[str, float]()
        for one in each:
            for symmetry, found in one.facts.get("invariance", {}).items():
                changes[symmetry] = max(changes.get(symmetry, 0.0), found["largest"])
        names = dict.fromkeys(name for one in each for name in one.seconds)
        seconds = {
            name: sum(one.seconds.get(name, 0.0) for one in each) / len(each) for name in names
        }
        return cls(
            first.row,
            first.access,
            invariances=tuple(first.invariances),
            changes=changes,
            is_baseline=first.row in baselines,
            seeds=tuple(one.seed for one in each),
            seconds={name: float(f"{value:.4g}") for name, value in seconds.items()},
            facts={name: value for name, value in first.facts.items() if name != "invariance"},
        )

    @property
    def label(self) -> str:
        """Its name, and whether it is a baseline."""
        return f"{self.name} (baseline)" if self.is_baseline else self.name

    @property
    def access_words(self) -> str:
        """How much of a network it is shown, in words."""
        return "function access" if self.access == "networks" else self.access

    def verdict(self, symmetry: str) -> str:
        """Return what was claimed of a symmetry and what was found: `claimed, holds: 2e-07`."""
        claimed = "claimed" if symmetry in self.invariances else "not claimed"
        if symmetry not in self.changes:
            return f"{claimed}, not tried"
        largest = self.changes[symmetry]
        return f"{claimed}, {'holds' if largest <= TOLERANCE else 'fails'}: {largest:.2g}"

    @property
    def holds(self) -> list[str]:
        """Symmetries that were tried and change no prediction."""
        return [symmetry for symmetry, largest in self.changes.items() if largest <= TOLERANCE]

    @property
    def breaks(self) -> list[str]:
        """Symmetries that it claims and does not have."""
        return [s for s in self.invariances if self.changes.get(s, 0.0) > TOLERANCE]


@dataclass(frozen=True)
class Report:
    """All figures of an experiment."""

    name: str
    """Name of the experiment."""
    rows: tuple[Row, ...]
    """Rows, the baselines last."""
    entries: tuple[Entry, ...]
    """Figures of each row."""
    targets: tuple[Target, ...]
    """Properties, of all networks and of some."""
    facts: dict[str, dict[str, Json]]
    """Title -> facts of what was told and by whom, for the reader."""
    seed: int
    """Seed of the draws that intervals and ceilings come from."""

    @property
    def properties(self) -> tuple[str, ...]:
        """Names of the properties."""
        return tuple(dict.fromkeys(one.property for one in self.targets))

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the parts of the test networks, all of them first."""
        return tuple(dict.fromkeys(one.subset for one in self.targets))

    def target(self, name: str, *, subset: str = ALL) -> Target:
        """Return what is known of a property."""
        return next(t for t in self.targets if (t.property, t.subset) == (name, subset))

    def entry(self, row: str, name: str, *, subset: str = ALL, step: str = CHOSEN) -> Entry | None:
        """Return the figures of a row on a property; None where there are none."""
        wanted = (row, name, subset, step)
        found = (e for e in self.entries if (e.row, e.property, e.subset, e.step) == wanted)
        return next(found, None)

    def over_ceiling(self, entry: Entry) -> float | None:
        """Return tau over the best that can be reached."""
        most = self.target(entry.property, subset=entry.subset).ceiling.tau
        return entry.tau / most if most and entry.tau is not None else None

    def lines(self) -> list[str]:
        """Return what it says, for a terminal: a short table of each property, and sentences."""
        from dwf.predictors.report.tables import terminal  # which reads reports

        return list(terminal(self))

    def save(self, folder: Path) -> None:
        """Write `report.json`."""
        write_json(folder / FILE, SCHEMA.head | asdict(self))

    @staticmethod
    def load(folder: Path) -> "Report":
        """Return what `save` wrote.

        Raises:
            ConfigError: there is none, or it is of another version or schema.
        """
        told = SCHEMA.validate(Path(folder) / FILE)
        rows = (
            Row(**r | {"invariances": tuple(r["invariances"]), "seeds": tuple(r["seeds"])})
            for r in told["rows"]
        )
        return Report(
            told["name"],
            tuple(rows),
            entries=tuple(map(Entry.from_json, told["entries"])),
            targets=tuple(map(Target.from_json, told["targets"])),
            facts=told["facts"],
            seed=told["seed"],
        )
