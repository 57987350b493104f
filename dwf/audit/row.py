"""One row of an audit, a unit of its work: timed, fitted, drawn from; then what came of it.

audits/NAME/settings.yaml      what the settings files said when the audit began
audits/NAME/ZOO/zoos, runs     the zoo, each row's generator and its networks, by the row's name
audits/NAME/ZOO/steps/ROW.json how long its parts train, decided once
audits/NAME/ZOO/rows/ROW.json  a row that is over: finished, or failed and why; written last
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dwf import preemption
from dwf.audit.budget import Budget, decide, with_steps
from dwf.audit.config import AuditConfig, RowConfig
from dwf.errors import DwfError, Preempted
from dwf.evaluation.config import EvaluateConfig
from dwf.files import read_json
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.metrics import logger
from dwf.pipeline import STAGES
from dwf.plain import Json, Settings
from dwf.randomness import threads
from dwf.ranks import alone
from dwf.run_folder import hold, write_json
from dwf.settings import Overlay, assigned, build, read_yaml, to_dict
from dwf.yaml_files import read_mapping
from dwf.zoo.config import ZooConfig

SETTINGS = "settings.yaml"
Files = dict[str, dict[str, Json]]
"""Settings file, see `known_as` -> what it says."""


_FILLED = {stage: (*one.reads, *one.reads_all) for stage, one in STAGES.items()}
_FILLED["generator"] += ("likelihood",)  # which no table of an audit has
_FILLED["evaluate"] += ("split", "label")


@dataclass(frozen=True)
class Unit:
    """One generator on one zoo."""

    zoo: str
    row: str


@dataclass(frozen=True)
class Audit:
    """An audit's settings, those of the files that it names among them."""

    config: AuditConfig
    files: Files

    @classmethod
    def of(cls, config: AuditConfig) -> "Audit":
        """Return it as the files are now, with what `set` gives in their place.

        Raises:
            ConfigError: a file is missing, or not YAML; or `set` names what is not there.
        """
        rows = config.chosen.values()
        named = [("zoo", file) for file in config.zoos]
        named += [("align", config.align), ("sample", config.sample), ("evaluate", config.evaluate)]
        for row in rows:
            named += [("generator", row.generator), ("sample", row.sample)]
        stages: dict[str, dict[str, Overlay]] = {}
        for stage, file in named:
            if file is not None:
                data = Overlay(STAGES[stage].config, read_yaml(file, stage))
                stages.setdefault(stage, {})[file] = data
        said = assigned(config.set, stages, filled=_FILLED)
        return cls(
            config,
            {
                known_as(stage, file): data
                for stage, files in said.items()
                for file, data in files.items()
            },
        )

    @classmethod
    def read(cls, folder: Path) -> "Audit":
        """Return one that has been begun, from its folder alone."""
        file = folder / "run" / "config.yaml"
        config = build(AuditConfig, read_mapping(file), source=str(file))
        return cls(config, read_mapping(folder / SETTINGS))

    @property
    def units(self) -> tuple[Unit, ...]:
        """The rows that are trained, of each zoo in turn."""
        return tuple(
            Unit(label, name)
            for label in self.config.labels
            for name, row in self.config.rows_of(label).items()
            if row.generator is not None
        )

    def frame(self, label: str) -> str:
        """Return the name of the zoo that generators learn from: aligned, or as it was trained."""
        return f"{label}-aligned" if self.config.align else label

    def zoo(self, label: str) -> ZooConfig:
        """Return a zoo's settings."""
        file = self.config.zoos[self.config.labels.index(label)]
        return self._built(ZooConfig, "zoo", file=file)

    def generator(self, unit: Unit) -> GeneratorConfig:
        """Return a row's generator, with the steps of its file."""
        file = self.config.rows[unit.row].generator
        links = {"zoo": self.frame(unit.zoo), "likelihood": 0}
        return self._built(GeneratorConfig, "generator", file=file, **links)

    def sample(self, unit: Unit) -> SampleConfig:
        """Return how a row's networks are drawn."""
        file = self.config.rows[unit.row].sample or self.config.sample
        return self._built(SampleConfig, "sample", file=file, generator=unit.row)

    def evaluate(self, label: str, samples: tuple[str, ...]) -> EvaluateConfig:
        """Return a zoo's report on some sets of samples."""
        links = {"zoo": self.frame(label), "samples": samples, "split": "test"}
        return self._built(EvaluateConfig, "evaluate", file=self.config.evaluate, **links)

    def row(self, unit: Unit) -> RowConfig:
        """Return a row's settings."""
        return self.config.rows[unit.row]

    def said(self, stage: str, file: str) -> dict[str, Json]:
        """Return what a stage's settings file says."""
        return self.files[known_as(stage, file)]

    def _built(self, cls: type, stage: str, *, file: str, **links: Json) -> Settings:
        return build(cls, self.said(stage, file) | links, source=file)


def known_as(stage: str, file: str) -> str:
    """Return the name of a settings file within an audit; presets of two stages may share one."""
    return file if Path(file).is_absolute() else f"{stage}/{file}"


def record_path(folder: Path, unit: Unit) -> Path:
    """The record of a row that is over."""
    return folder / unit.zoo / "rows" / f"{unit.row}.json"


def steps_path(folder: Path, unit: Unit) -> Path:
    """The record of how long a row's parts train."""
    return folder / unit.zoo / "steps" / f"{unit.row}.json"


def read_record(folder: Path, unit: Unit) -> dict[str, Json] | None:
    """Return what came of a row; None where it is not over."""
    file = record_path(folder, unit)
    return read_json(file) if file.exists() else None


def finished_rows(folder: Path) -> set[int]:
    """Return the units that are over."""
    units = Audit.read(folder).units
    return {index for index, unit in enumerate(units) if record_path(folder, unit).exists()}


def do_row(folder: Path, index: int) -> None:
    """Do one row of the audit in `folder`; idempotent, goes on with what was left.

    What goes wrong in a row is written down, and the others are not concerned; but where a file
    cannot be read or written the same row is tried again.
    """
    audit = Audit.read(folder)
    unit = audit.units[index]
    seconds: dict[str, float] = {}
    told: dict[str, Json] = {"zoo": unit.zoo, "row": unit.row}
    # Of a worker whose driver was killed one waits, then finds the row over, or goes on with it.
    with hold(folder / unit.zoo / "locks" / unit.row, seconds=math.inf):
        if record_path(folder, unit).exists():
            return
        try:
            with alone(), threads(1):  # the bytes depend on it
                told |= {"steps": _make(audit, unit, folder, seconds).steps, "state": "finished"}
        except (Preempted, OSError):
            raise
        except DwfError as error:
            told |= {"state": "failed", "reason": str(error)}
        except Exception as error:  # a bug, which the log tells in full
            logger.exception("row %s failed", unit.row)
            told |= {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
        told["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
        write_json(record_path(folder, unit), told)


def _make(audit: Audit, unit: Unit, folder: Path, seconds: dict[str, float]) -> Budget:
    from dwf.generators.sample_stage import sample_networks
    from dwf.generators.stage import fit_generator

    root, config = folder / unit.zoo, audit.generator(unit)
    with _clock(seconds, "timing"):
        budget = _budget(audit, unit, folder, config)
    with _clock(seconds, "generator"):
        fit_generator(with_steps(config, budget.steps), root, name=unit.row)
    with _clock(seconds, "sample"):
        sample_networks(audit.sample(unit), root, name=unit.row)
    return budget


def _budget(audit: Audit, unit: Unit, folder: Path, config: GeneratorConfig) -> Budget:
    """Return how long a row's parts train: as it was decided first."""
    file = steps_path(folder, unit)
    if not file.exists():
        decided = decide(
            config,
            folder / unit.zoo,
            minutes=audit.config.budget_minutes,
            given=audit.row(unit).steps,
        )
        write_json(file, to_dict(decided))
    return build(Budget, read_json(file), source=str(file))


@contextmanager
def _clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Take the time of a part of a row; none is begun once a signal asked to stop."""
    if preemption.is_asked():
        preemption.stop()
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began
