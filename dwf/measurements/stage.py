"""The measurement stage: decide columns, measure every block of rows, say what was found.

    zoos/ZOO/measured/NAME/      see folder.py
    zoos/ZOO/measured/NAME/run/  records, and arrays that blocks share while they are in work

A unit is a block of rows: `measure_unit(folder, index)` is idempotent. Whoever calls `measure_zoo`
says where units run.
"""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from dwf.devices import find_device
from dwf.errors import ConfigError, IncompleteZoo, NotAZoo, RunConflict
from dwf.measurements.columns import GAP, OF_GAP, measured, measurements
from dwf.measurements.config import MeasureConfig, block_size
from dwf.measurements.folder import (
    FILE,
    Column,
    Measured,
    finished_blocks,
    folder_of,
    is_whole,
)
from dwf.measurements.pictures import Pictures
from dwf.measurements.unit import (
    made_folder,
    measure_unit,
    measured_rows,
    measures_of,
    progress,
)
from dwf.metrics import print_report
from dwf.networks.functional import is_stacked
from dwf.plain import Json
from dwf.run_folder import LEFTOVERS, RunFolder, hold, replacing, sweep
from dwf.settings import to_dict
from dwf.stages import Product, Runner, Work, run_here, stage
from dwf.zoo.facts import FILE as ZOO_FILE
from dwf.zoo.manifest import zoos_named
from dwf.zoo.store import Zoo
from dwf.zoo.store import is_whole as is_whole_zoo

_TABLE_WIDTH = 110

MEASUREMENT = Product("measurement", records="run", head=FILE, is_whole=is_whole)


@dataclass(frozen=True)
class Findings:
    """Columns of one measurement of one zoo."""

    folder: Path
    """Where they lie."""
    told: Measured
    """Facts of the measurement."""
    values: dict[str, np.ndarray]
    """Name -> values of the rows that were measured, float64."""


def plan(config: MeasureConfig, root: Path, *, name: str) -> str:
    """Return in words what `measure_zoo` would measure, zoo by zoo; changes nothing."""
    return "\n".join(_plan(each, Path(root), name) for each in _members(config, Path(root)))


def measure_zoo(
    config: MeasureConfig, root: Path | str, *, name: str, run: Runner = run_here
) -> tuple[Findings, ...]:
    """Measure every network of a zoo, or of each zoo of a manifest, or go on with it.

    Shards never change: columns are files beside them, or, where the zoo's folder cannot be
    written, under `runs/`. Measured once, they are read, and nothing is overwritten.

    Args:
        config: which zoo, which measures.
        root: folder that holds zoos/ and runs/.
        name: of the measurement.
        run: runs the units: `run_here`, or a runner of `dwf.cluster`.

    Returns:
        The columns of each zoo.

    Raises:
        NotAZoo, IncompleteZoo: there is no such zoo, or it is still in work.
        ConfigError: a measure does not fit the networks or images, or its column is there already;
            or it is code that the user did not name.
        RunConflict: the folder holds a measurement by other settings or of other weights; or
            another process is at it.
        WorkFailed: units failed; the others are whole.
    """
    root = Path(root)
    return tuple(_measure(each, Path(root), name, run) for each in _members(config, Path(root)))


def work(folder: Path) -> Work:
    """Return the units of a measurement that has been begun."""
    told = Measured.read(folder)
    return Work(
        folder=folder,
        count=told.num_blocks,
        unit=measure_unit,
        finished=finished_blocks,
        progress=progress,
        what=f"measure {told.zoo}",
        size=told.rows,
        unit_name="networks",
        device=told.device,
    )


def report(made: Sequence[Findings]) -> None:
    """Print mean and spread of each column, and where they lie."""
    for found in made:
        rows = [_row(name, column, found.values[name]) for name, column in _listed(found)]
        print_report(
            f"{found.told.zoo}: {found.told.rows:,} networks",
            ["column", "images", "mean", "std", "least", "most"],
            rows=rows,
            bold=[False] * len(rows),
            paragraphs=(),
            width=_TABLE_WIDTH,
        )
        print(f"columns: {found.folder}")


# --- one zoo --------------------------------------------------------------------------------------


def _members(config: MeasureConfig, root: Path) -> list[MeasureConfig]:
    """Settings of each zoo that a name stands for."""
    return [replace(config, zoo=zoo) for zoo in zoos_named(root / "zoos", (config.zoo,))]


def _plan(config: MeasureConfig, root: Path, name: str) -> str:
    folder, path = folder_of(root, config.zoo, name=name), root / "zoos" / config.zoo
    said = f"measure {config.zoo} by {', '.join(config.measures)} -> {folder}"
    if not (path / ZOO_FILE).exists() or not is_whole_zoo(path):
        return f"{said}\nno zoo {config.zoo} is there yet, or it is in work"
    zoo = Zoo.open(path)
    return f"{said}\n{len(measured_rows(config, zoo)):,} networks of {zoo.layout.size:,} weights"


def _measure(config: MeasureConfig, root: Path, name: str, run: Runner) -> Findings:
    zoo, began = _open(root / "zoos" / config.zoo), time.monotonic()
    refuse = partial(_refuse_other_weights, zoo=zoo)
    begun = (folder_of(root, config.zoo, name=name) / FILE).exists()
    decided = None if begun else _decide(config, zoo, root)  # what is refused leaves no folder
    folder = _writable(root, config.zoo, name)
    with stage(MEASUREMENT, folder, config=config, refuse_other=refuse, has_workers=True) as record:
        if record is None:
            return _findings(folder, zoo, root)
        _begin(folder, config, zoo, decided)
    run(work(folder))
    with hold(record.path, math.inf):  # of two that watched the same jobs, one after the other
        return _finish(record, zoo, root, time.monotonic() - began)


def _open(path: Path) -> Zoo:
    """Open a zoo that nobody works on."""
    if (path / ZOO_FILE).exists() and not is_whole_zoo(path):
        raise IncompleteZoo(
            f"{path} is still in work: it lacks shards or zoo.h5; give the command that makes it "
            f"again, and measure it when it is whole (dwf status {path})"
        )
    zoo = Zoo.open(path)
    if not len(zoo):
        raise NotAZoo(f"{path} has no networks to measure: train a zoo with more")
    return zoo


def _writable(root: Path, zoo: str, name: str) -> Path:
    """Return the measurement's folder, made; beside the zoo where that can be written."""
    folder = folder_of(root, zoo, name=name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # what the system did not tell before
        folder = root.absolute() / "runs" / f"{zoo}-measured" / name
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _refuse_other_weights(run: RunFolder, *, zoo: Zoo) -> None:
    folder = run.path.parent
    if (folder / FILE).exists() and Measured.read(folder).fingerprint != zoo.fingerprint:
        raise RunConflict(
            f"{folder} is of other weights than {zoo.path} has now: give another --name, or remove "
            "the folder"
        )


def _decide(config: MeasureConfig, zoo: Zoo, root: Path) -> Measured:
    """Decide columns and how they are computed; refuse what does not fit."""
    pictures = Pictures.of(zoo.facts, config.seed)
    columns: dict[str, Column] = {}
    for measure in measures_of(config):
        own = measure.columns(pictures, zoo.facts)
        _refuse_known(own, columns, zoo, root)
        columns |= own
    network = zoo.build_network()
    size = block_size(config.block, is_stacked(network), num_weights=zoo.layout.size)
    said: dict[str, Json] = zoo.facts.to_json()
    return Measured(
        zoo=zoo.name,
        fingerprint=zoo.fingerprint,
        rows=len(measured_rows(config, zoo)),
        block=size,
        device=find_device(config.compute.device).type,
        seed=config.seed,
        data=said.get("data"),
        image_split=zoo.facts.image_split,
        measures=to_dict(config.measures),
        columns=columns,
    )


def _refuse_known(own: dict[str, Column], columns: dict[str, Column], zoo: Zoo, root: Path) -> None:
    """Refuse a column that is there already, in the zoo's table, here or in another measurement."""
    known = {name: f"the table of {zoo.path}" for name in zoo.columns}
    if all(name in zoo.columns for name in OF_GAP):
        known[GAP] = f"{' and '.join(OF_GAP)} of {zoo.path}"
    known |= {name: str(f) for f, told in measurements(zoo, root) for name in told.columns}
    known |= dict.fromkeys(columns, "another measure of these settings")
    for name, column in own.items():
        if name in known:
            raise ConfigError(
                f"measures.{column.measure}: its column {name} is measured already, in "
                f"{known[name]}: leave it out, or give the measure another name"
            )


def _begin(folder: Path, config: MeasureConfig, zoo: Zoo, decided: Measured | None) -> None:
    """Write what units need, `measured.json` last."""
    pictures = Pictures.of(zoo.facts, config.seed)
    for measure in measures_of(config):
        for name, array in measure.prepare(pictures).items():
            file = made_folder(folder) / f"{name}.npy"
            if not file.exists():
                with replacing(file) as partial_file, open(partial_file, "wb") as opened:
                    np.save(opened, array)
    if decided is not None:
        decided.write(folder)


def _finish(record: RunFolder, zoo: Zoo, root: Path, seconds: float) -> Findings:
    folder = record.path.parent
    found = _findings(folder, zoo, root)
    if record.summary is None or not is_whole(folder):  # else another launch was first
        means = {name: float(np.nanmean(v)) for name, v in found.values.items() if _has_numbers(v)}
        record.finish(rows=found.told.rows, means=means, seconds=round(seconds, 2))
    shutil.rmtree(made_folder(folder), ignore_errors=True)
    sweep(folder.rglob(LEFTOVERS))
    return found


def _findings(folder: Path, zoo: Zoo, root: Path) -> Findings:
    told, columns = Measured.read(folder), measured(zoo, root)
    return Findings(folder, told, {name: columns[name] for name in told.columns})


# --- in words -------------------------------------------------------------------------------------


def _listed(found: Findings) -> list[tuple[str, Column]]:
    return list(found.told.columns.items())


def _row(name: str, column: Column, values_N: np.ndarray) -> list[str]:
    images = f"{column.images:,} {column.part}" if column.images is not None else ""
    if not _has_numbers(values_N):
        return [name, images, *["-"] * 4]
    told = (np.nanmean(values_N), np.nanstd(values_N), np.nanmin(values_N), np.nanmax(values_N))
    return [name, images, *(f"{one:.4g}" for one in told)]


def _has_numbers(values_N: np.ndarray) -> bool:
    return bool(np.isfinite(values_N).any())
