"""One row of an experiment under one seed, a unit of its work: fitted, saved, then what it tells.

runs/NAME/rows/ROW/seed-S/predictor.pt    the predictor; metrics.jsonl and checkpoints/ if it trains
runs/NAME/rows/ROW/seed-S/told.npz        what it tells of test and validation networks
runs/NAME/rows/ROW/seed-S/seconds.json    how long that took
runs/NAME/rows/ROW/seed-S/told.json       a row that is over: finished, or failed and why; last

Shape suffixes: N networks, P properties.
"""

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwf import preemption
from dwf.errors import DwfError, Preempted, WorkFailed
from dwf.files import read_json, reading_arrays, told_by
from dwf.flags import name_and_root
from dwf.metrics import logger
from dwf.plain import Json
from dwf.predictors.config import PREDICTORS, PredictorSettings
from dwf.predictors.examples import Examples
from dwf.predictors.experiment import Experiment
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.predictors.invariance import largest_changes
from dwf.predictors.predictor import Predictor
from dwf.predictors.start import start_of
from dwf.predictors.told import Told
from dwf.randomness import threads
from dwf.ranks import alone, world
from dwf.run_folder import RunPart, hold, replacing, write_json
from dwf.settings import build, find, to_dict
from dwf.stages import Work
from dwf.yaml_files import read_mapping

RECORD, VALUES, SECONDS = "told.json", "told.npz", "seconds.json"
_LOOKED_AT = 8
"""Networks of each zoo that a predictor's invariances are tried on."""


@dataclass(frozen=True)
class Unit:
    """A row under a seed."""

    row: str
    seed: int

    def folder(self, run: Path) -> Path:
        """Its folder in that of the run."""
        return run / "rows" / self.row / f"seed-{self.seed}"


def read_config(run: Path) -> ExperimentConfig:
    """Return the settings of an experiment that was begun."""
    file = run / "run" / "config.yaml"
    return build(ExperimentConfig, read_mapping(file), source=str(file))


def units_of(config: ExperimentConfig, every: bool = False) -> tuple[Unit, ...]:
    """Return the rows that are fitted now under each seed; `every`: those not chosen, too."""
    names = config.rows if every else config.chosen
    return tuple(Unit(name, seed) for name in names for seed in config.all_seeds)


def units_there(run: Path, config: ExperimentConfig, *, every: bool = False) -> tuple[Unit, ...]:
    """Return the same with all seeds that were begun before, which settings may not count now."""
    names = config.rows if every else config.chosen
    begun = (run / "rows").glob("*/seed-*")
    seeds = {int(folder.name.removeprefix("seed-")) for folder in begun} | {*config.all_seeds}
    units = (Unit(name, seed) for name in names for seed in sorted(seeds))
    return tuple(u for u in units if u.seed in config.all_seeds or u.folder(run).exists())


def read_record(run: Path, unit: Unit) -> dict[str, Json] | None:
    """Return what came of a row, its `facts` or the `reason` that it has none; None: not over."""
    file = unit.folder(run) / RECORD
    if not file.exists():
        return None
    told = read_json(file)
    with told_by(file):
        if not isinstance(told.get("reason", ""), str):
            raise TypeError("reason is no word")
        if "reason" not in told and not isinstance(told["facts"], dict):
            raise TypeError("facts are no `key: value` pairs")
    return told


def is_finished(run: Path, unit: Unit) -> bool:
    """Whether a row is over and tells something."""
    record = read_record(run, unit)
    return record is not None and "reason" not in record


def finished_units(run: Path) -> set[int]:
    """Return the units that are over."""
    units = units_of(read_config(run))
    return {i for i, unit in enumerate(units) if (unit.folder(run) / RECORD).exists()}


def forget(run: Path, unit: Unit) -> None:
    """Remove all that there is of a row under a seed."""
    shutil.rmtree(unit.folder(run), ignore_errors=True)


def do_row(run: Path, index: int) -> None:
    """Do one unit of the experiment in a folder; idempotent, goes on with what was left.

    What goes wrong in a row is written down, and the others are not concerned; but where a file
    cannot be read or written the same row is tried again.
    """
    config = read_config(run)
    unit = units_of(config)[index]
    folder = unit.folder(run)
    # Of a worker whose driver was killed one waits, then finds the row over, or goes on with it.
    with hold(folder, seconds=math.inf), alone():
        if not (folder / RECORD).exists():
            _write_outcome(config, unit, run)


def do_together(work: Work) -> None:
    """Do the units of an experiment one after the other, by ranks that all call it.

    They train together what has an engine that they share; all else the first does alone.
    """
    ours = world()
    config = ours.on_first(read_config, work.folder)
    units = units_of(config)
    for index in sorted(set(range(work.count)) - ours.on_first(work.finished, work.folder)):
        unit = units[index]
        training = config.rows[unit.row].training
        if training is None or training.engine == "plain":
            ours.on_first(do_row, work.folder, index)
            continue
        _write_outcome(config, unit, work.folder)


def _write_outcome(config: ExperimentConfig, unit: Unit, run: Path) -> None:
    """Do a unit and write its record; the states saved on the way have done their service."""
    record, folder = _outcome(config, unit, run), unit.folder(run)

    def write() -> None:
        write_json(folder / RECORD, record)
        RunPart(folder, to_dict(config.rows[unit.row])).drop_checkpoints()

    world().on_first(write)


def _outcome(config: ExperimentConfig, unit: Unit, run: Path) -> dict[str, Json]:
    """Fit it and let it tell; return its record."""
    head = {"row": unit.row, "seed": unit.seed, "config": to_dict(config.rows[unit.row])}
    try:
        with threads(1):  # the bytes depend on it
            facts = _fit_and_tell(config, unit, run)
    except (Preempted, OSError):
        raise
    except DwfError as error:
        return head | {"state": "failed", "reason": str(error)}
    except Exception as error:  # a bug, which the log tells in full
        if world().size > 1:
            raise  # of one rank, perhaps, for which the others would wait
        logger.exception("row %s failed", unit.row)
        return head | {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
    return head | {"state": "finished", "facts": facts}


def _fit_and_tell(config: ExperimentConfig, unit: Unit, run: Path) -> dict[str, Json]:
    if preemption.agreed():
        preemption.stop()
    ours, seconds = world(), dict[str, float]()
    experiment = ours.on_all(Experiment.read, run, root=name_and_root(run, "runs")[1])
    settings = config.rows[unit.row]
    predictor: Predictor = find(PREDICTORS, settings.kind)(settings)
    if (start := start_of(config, settings)) is not None:
        predictor.start_from(start)
    part = RunPart(unit.folder(run), to_dict(settings))
    with _clock(seconds, "fit"):
        train, val = experiment.examples("train"), experiment.examples("val")
        facts = predictor.fit(train, val, run=part, seed=unit.seed)
        facts = facts | ours.on_first(_invariance, predictor, train, seed=unit.seed)
    test = experiment.examples("test")
    ours.on_first(_tell, predictor, unit.folder(run), val=val, test=test, seconds=seconds)
    return facts


def _invariance(predictor: Predictor, train: Examples, *, seed: int) -> dict[str, Json]:
    """Return by how much symmetries of a few networks of each zoo change what it tells, at most."""
    unit_P, most = train.values_NP.std(0), dict[str, Json]()
    for zoo, rows in train.sources:
        source = zoo, rows[:_LOOKED_AT]
        for symmetry, found in largest_changes(predictor, source, unit_P=unit_P, seed=seed).items():
            if symmetry not in most or found["largest"] > most[symmetry]["largest"]:
                most[symmetry] = found
    return {"invariance": most} if most else {}


def _tell(
    predictor: Predictor,
    folder: Path,
    *,
    val: Examples,
    test: Examples,
    seconds: dict[str, float],
) -> None:
    """Save a fitted predictor, and what it tells of the networks that it did not learn from."""
    predictor.save(folder)
    with _clock(seconds, "predict"):
        values_NP = predictor.predict(test.sources)
    arrays = {"values": values_NP, "val": predictor.predict(val.sources)}
    if _keeps_best(predictor.config):
        arrays["last"] = predictor.predict_last(test.sources)
    for told_NP in arrays.values():
        if num := int((~np.isfinite(told_NP)).any(1).sum()):
            raise WorkFailed(f"it tells no number of {num} of {len(told_NP)} held-out networks")
    with replacing(folder / VALUES) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)
    write_json(folder / SECONDS, {name: round(value, 2) for name, value in seconds.items()})


def _keeps_best(settings: PredictorSettings) -> bool:
    """Whether what it tells is of a step that was chosen among several."""
    return settings.training is not None and settings.training.keep != "last"


@contextmanager
def _clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


def read_told(run: Path, unit: Unit, *, config: ExperimentConfig) -> Told | None:
    """Return what a row tells of the test networks; None where it did not finish.

    Raises:
        CorruptCheckpoint: a file is damaged.
    """
    record, folder = read_record(run, unit), unit.folder(run)
    if record is None or "reason" in record:
        return None
    settings = config.rows[unit.row]
    with reading_arrays(folder / VALUES), np.load(folder / VALUES) as file:
        values_NP, last_NP, val_VP = file["values"], file.get("last"), file["val"]
    seconds = read_json(folder / SECONDS) if (folder / SECONDS).exists() else {}
    return Told(
        row=unit.row,
        seed=unit.seed,
        access=settings.access,
        invariances=tuple(sorted(settings.invariances)),
        values_NP=values_NP,
        last_NP=last_NP,
        val_VP=val_VP,
        seconds=seconds,
        facts=record["facts"],
    )
