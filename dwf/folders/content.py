"""Numbers that folders hold, in one form for all kinds: of sets of networks, or one each.

Which network a number is of decides whether two folders' numbers pair up. Networks are the same
where zoos have the same weights and the number is the same; of trained zoos also where seed and
layout are, since network i then begins with the same weights and draws from the same streams.

Shape suffixes: N networks.
"""

import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwf.errors import ConfigError
from dwf.evaluation.report import Reconstruction, Report
from dwf.files import read_json
from dwf.folders.kinds import KINDS, Place
from dwf.metrics import read_metrics
from dwf.plain import Json
from dwf.predictors.report import Report as PredictorReport
from dwf.settings import flatten
from dwf.transfer.report import TransferReport
from dwf.zoo.config import is_test_score
from dwf.zoo.provenance import Trained
from dwf.zoo.store import Zoo

Networks = tuple[Hashable, ...]
"""Which network each number is of; empty where that is not known."""
_OF_RUNS = "the run"
_RATIOS = ("distance_ratio", "behaviour_ratio", "units_ratio")
_OF_A_ZOO = ("val_accuracy", "train_accuracy", "val_loss", "train_loss")


@dataclass(frozen=True)
class Numbers:
    """One measure of every network of a set."""

    values_N: np.ndarray
    """Values, float64, or bool for yes and no; NaN where one was not finite."""
    is_share: bool = False
    """Whether they are shown in percent."""
    is_median: bool = False
    """Whether the median stands for all; else the mean."""

    @property
    def figure(self) -> float:
        """The one number that stands for all."""
        values_N = self.values_N.astype(float)
        values_N = values_N[np.isfinite(values_N)]
        if not len(values_N):
            return float("nan")
        return float(np.median(values_N) if self.is_median else values_N.mean())


@dataclass(frozen=True)
class Group:
    """Numbers of a set of networks; of a run, one number each."""

    title: str
    """Its name, as the folder's report has it."""
    family: str
    """Kind of set, by which two of other names are set beside each other."""
    measures: dict[str, Numbers]
    networks: Networks = ()


@dataclass(frozen=True)
class Content:
    """All that is compared of a folder."""

    place: Place
    settings: dict[str, Json]
    """Dotted key -> value: its own settings, and of a report those of what it is on."""
    groups: tuple[Group, ...]


def read_content(place: Place) -> Content:
    """Return the settings and numbers of a folder.

    Raises:
        ConfigError: its report is of another version.
        NotAZoo, IncompleteZoo, CorruptShard: it is a zoo that cannot be read.
    """
    more, groups = _OF_KIND.get(place.kind.noun, _of_run)(place)
    return Content(place, flatten(place.settings) | more, tuple(groups))


_Read = tuple[dict[str, Json], list[Group]]
"""Settings beside its own of what a folder is on, and its groups."""


def _of_any_report(place: Place) -> _Read:
    file = place.path / "report.json"
    if not file.exists():
        return _of_run(place)
    told = _format_of(file)
    if told not in _OF_FORMAT:
        raise ConfigError(f"{file}: format = {told!r}, this dwf compares {', '.join(_OF_FORMAT)}")
    return _OF_FORMAT[told](place)


def _format_of(file: Path) -> str:
    told = read_json(file, cure="make it again under another --name", error=ConfigError)
    return str(told.get("format", "dwf-reconstruction"))


def _of_zoo(place: Place) -> _Read:
    zoo = Zoo.open(place.path)
    rows = zoo.rows(epoch="last")
    facts = zoo.facts
    are_ours = isinstance(facts.provenance, Trained)
    mark = ("trained", facts.seed, zoo.layout.digest) if are_ours else (zoo.fingerprint,)
    numbers = zoo.columns["network"][rows].tolist() if len(zoo) else []
    found = [name for name in _OF_A_ZOO if name in zoo.columns and not is_test_score(name)]
    measures = {
        name: Numbers(zoo.columns[name][rows].astype(float), is_share=name.endswith("accuracy"))
        for name in found
    }
    networks = tuple((*mark, n) for n in numbers)
    return {}, [Group("last rows", "networks", measures, networks)]


def _of_run(place: Place) -> _Read:
    return {}, list(_numbers_of_run(place))


def _numbers_of_run(place: Place) -> Iterator[Group]:
    """Yield the summary that a run left, and the last line of each thing that learns in it."""
    done = place.done_file
    if done.exists():
        yield _single(_OF_RUNS, flatten(read_json(done)))
    for file in sorted(place.path.rglob("metrics.jsonl")):
        lines = read_metrics(file)
        if lines:
            where = file.parent.relative_to(place.path).as_posix()
            title = "last line of metrics" + ("" if where == "." else f" of {where}")
            yield _single(title, lines[-1])


def _single(title: str, told: dict[str, Json]) -> Group:
    numbers = {
        name: Numbers(np.array([float(value)]))
        for name, value in told.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    return Group(title, title, numbers)


def _of_report(place: Place) -> _Read:
    """Return settings of what a report is on, and its sets."""
    report = Report.load(place.path)
    done = place.done_file
    marks = read_json(done, keys=("fingerprints",))["fingerprints"] if done.exists() else {}
    whole = next(iter(marks.values()), None)  # the zoo's stands first
    groups = []
    for one in report.sets:
        mark = whole if one.family in ("originals", "held-out") else marks.get(one.source)
        numbers = one.networks.get("network", []) if mark else []
        accuracy = {one.scored: Numbers(one.accuracy_S, is_share=True)}
        ratios = {n: Numbers(one.values(n), is_median=True) for n in _RATIOS if n in one.networks}
        passed = np.array(one.networks["good_and_novel"], bool)
        measures = accuracy | ratios | {"good_and_novel": Numbers(passed, is_share=True)}
        networks = tuple((mark, network) for network in numbers)
        groups.append(Group(one.title, one.family, measures, networks))
    return _about(report.facts), groups


def _about(facts: dict[str, dict[str, Json]]) -> dict[str, Json]:
    """Return the settings of the generators and the zoo that a report is on, by their place."""
    found: dict[str, Json] = {}
    for prefix, short in (("settings of generator ", "generator"), ("zoo ", "zoo")):
        told = [each for title, each in facts.items() if title.startswith(prefix)]
        for place, each in enumerate(told):
            name = short if len(told) == 1 else f"{short}[{place}]"
            found |= {f"{name}: {key}": value for key, value in each.items()}
    return found


def _of_reconstruction(place: Place) -> _Read:
    report = Reconstruction.load(place.path)
    done = place.done_file
    mark = read_json(done).get("about", {}).get("zoo") if done.exists() else None
    groups = []
    for one in report.sets:
        measures = {
            name: Numbers(_floats(one.networks[name]), is_share=True)
            for name in ("reconstructed", "drop", "agreement")
        }
        numbers = one.networks["network"] if mark else []
        networks = tuple((mark, network) for network in numbers)
        groups.append(Group(one.title, one.title, measures, networks))
    return {}, groups


def _floats(values: list[float | None]) -> np.ndarray:
    return np.array([float("nan") if value is None else value for value in values], float)


def _of_predictors(place: Place) -> _Read:
    report = PredictorReport.load(place.path)
    beside = place.root / "runs" / place.name
    settings = flatten(Place(beside, KINDS["experiment"]).settings)
    return settings, [
        _single(row.name, {f"tau of {p}": _tau(report, row.name, p) for p in report.properties})
        for row in report.rows
    ]


def _tau(report: PredictorReport, row: str, name: str) -> float | None:
    entry = report.entry(row, name)
    return None if entry is None else entry.tau


def _of_finetune(place: Place) -> _Read:
    return {}, list(_arms(place)) if (place.path / "report.json").exists() else []


def _arms(place: Place) -> Iterator[Group]:
    report = TransferReport.load(place.path)
    starts = read_json(place.path / "starts.json", keys=("fingerprints",))
    same = (json.dumps(starts["fingerprints"], sort_keys=True), report.config.get("seed"))
    for arm in report.arms:
        at_end = {f"test_accuracy, epoch {report.epochs[-1]}": arm.test_EN[-1]}
        at_end |= {f"val_accuracy, epoch {report.epochs[-1]}": arm.val_EN[-1]}
        measures = {name: Numbers(values_N, is_share=True) for name, values_N in at_end.items()}
        networks = tuple((*same, arm.title, number) for number in range(arm.n))
        yield Group(arm.title, arm.family, measures, networks)


_OF_FORMAT: dict[str, Callable[[Place], _Read]] = {
    "dwf-report": _of_report,
    "dwf-predictors": _of_predictors,
    "dwf-reconstruction": _of_reconstruction,
}
"""Format of a `report.json` -> what reads it; one on a reconstruction does not say its own."""
_OF_KIND: dict[str, Callable[[Place], _Read]] = {
    "zoo": _of_zoo,
    "report": _of_any_report,
    "fine-tuning": _of_finetune,
}
"""Kind of folder -> what reads it; of others the summary and the metrics are read."""
