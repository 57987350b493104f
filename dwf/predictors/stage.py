"""The predictor stage: the networks, the rows one at a time or many at once, then one report.

    runs/NAME/run/        records
    reports/NAME/         the report, see `report`

What the networks are: see `experiment`; what a row leaves: see `row`. Whoever calls
`fit_predictors` says where rows run.
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from dwf.compute import Gpus, device_of_all
from dwf.errors import ConfigError, RunConflict, WorkFailed
from dwf.evaluation.report import INDEX, Record, renew_index, save_timing
from dwf.files import read_json
from dwf.flags import making_again, name_and_root
from dwf.names import folder_in
from dwf.plain import Json
from dwf.predictors import plan as planned
from dwf.predictors.compare import ALL, CHOSEN
from dwf.predictors.experiment import FILE, Experiment, Origin, read_truth
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.predictors.report import Report, write_report
from dwf.predictors.row import (
    Unit,
    do_row,
    finished_units,
    forget,
    is_finished,
    read_config,
    read_record,
    read_told,
    units_of,
    units_there,
)
from dwf.ranks import world
from dwf.run_folder import (
    LEFTOVERS,
    RunFolder,
    hold,
    sweep,
    write_text,
)
from dwf.same_settings import differences, refuse_other_settings
from dwf.settings import to_dict
from dwf.stages import Product, Runner, Work, run_here, stage
from dwf.yaml_files import read_mapping

FREE = ("only", "seeds")
"""Settings by which an experiment is widened."""
_TRACKED = ("tau", "r2")


def _is_whole(folder: Path) -> bool:
    return (folder / FILE).exists() and (_report_folder(folder) / "report.json").exists()


EXPERIMENT = Product("experiment", records="run", head=FILE, is_whole=_is_whole)


def with_engine(config: ExperimentConfig, engine: str) -> ExperimentConfig:
    """Return an experiment whose rows that train do so by an engine.

    Raises:
        ConfigError: none trains, or not by this engine.
    """
    rows = dict(config.rows)
    for name, row in config.rows.items():
        if row.training is not None:
            try:
                rows[name] = row.with_training(replace(row.training, engine=engine))
            except ValueError as error:
                raise ConfigError(f"rows.{name}.training.engine = {engine!r}: {error}") from None
    if engine != "plain" and not any(r.training for r in rows.values()):
        raise ConfigError(f"--engine {engine}: no row trains ({', '.join(rows)}): leave it out")
    return replace(config, rows=rows)


def plan(
    config: ExperimentConfig,
    root: Path,
    *,
    name: str,
    ranks: int = 1,
    gpus: Gpus | None = None,
) -> str:
    """Return in words what `fit_predictors` would fit: networks, rows, parameters, memory.

    Args:
        config: which networks, which properties, which rows.
        root: folder that holds zoos/ and runs/.
        name: the experiment's name.
        ranks: how many train together, one for each GPU.
        gpus: those of the site that it is planned for; None: of this machine.

    Raises:
        ConfigError, TooFewNetworks, NotAZoo: of zoos that are there, see `Experiment.decide`.
    """
    folder, units = _folder(root, name), units_of(config)
    over = sum(read_record(folder, unit) is not None for unit in units)
    lines = [
        f"{len(config.chosen)} rows on {', '.join(config.zoos)}, seeds "
        f"{', '.join(map(str, config.all_seeds))} -> {folder}"
        + (f"; {over} of {len(units)} are over and kept" if over else ""),
        *planned.describe(config, Path(root), ranks=ranks, gpus=gpus),
    ]
    return "\n".join(lines)


def fit_predictors(
    config: ExperimentConfig, root: Path | str, *, name: str, run: Runner = run_here
) -> Report:
    """Fit all rows and write the report, or go on with an experiment; rows that are over are kept.

    Rows that failed are tried again from their beginning, and their settings may have changed; so
    may be which rows are asked for, and how many seeds: the report is on all that are finished.

    Args:
        config: which networks, which properties, which rows.
        root: folder that holds zoos/, runs/ and reports/.
        name: the experiment's name; it is written to root/runs/NAME and root/reports/NAME.
        run: runs the rows: `run_here`, a runner of `dwf.cluster`, or, of ranks that all call it,
            `row.do_together`.

    Returns:
        The report; read from disk where it is finished already.

    Raises:
        ConfigError, TooFewNetworks, NotAZoo, IncompleteZoo: see `Experiment.decide`.
        RunConflict: the folder holds something else, or zoos have changed since it began; or
            another process is at it.
        WorkFailed: rows failed; names each with its reason. The report is on the others.
        Preempted: a signal asked to stop.
    """
    root = Path(root)
    ours, root, folder = world(), Path(root), _folder(root, name)
    ours.on_first(_refuse_other_products, folder)
    experiment = ours.on_all(Experiment.decide, config, root)  # what is refused leaves no folder
    ours.on_first(_take_changed_rows, folder, config)
    refuse = partial(_refuse_other_networks, origin=experiment.origin)
    with stage(
        EXPERIMENT,
        folder,
        config=config,
        refuse_other=refuse,
        free=FREE,
        has_workers=True,
        ours=ours,
    ) as record:
        if record is not None:
            ours.on_first(_begin, experiment, folder, config=config)
    if record is None:
        return ours.on_first(_finished_report, folder)
    problem = _run_rows(work(root, name=name), run)
    return ours.on_first(_finish, record, problem)


def report_again(config: ExperimentConfig, root: Path, *, name: str) -> Report:
    """Write the report of an experiment from what its rows have left; none is fitted.

    Args:
        config: its settings; the rows that are chosen are reported.
        root: folder that holds runs/ and reports/; the zoos may be gone.
        name: the experiment's name.

    Raises:
        RunConflict: no such experiment, or one of other settings.
        WorkFailed: none of the rows is finished.
    """
    folder = _folder(root, name)
    if not (folder / FILE).exists():
        raise RunConflict(f"{folder} holds no experiment: fit one without --evaluate-only")
    refuse_other_settings(folder / "run", config, free=FREE)
    with hold(folder / "run"):
        return _report(folder, config, units_there(folder, config))


def work(root: Path, *, name: str) -> Work:
    """Return the rows of an experiment that has been begun, as units of work."""
    folder = _folder(root, name)
    config = read_config(folder)
    count = len(units_of(config))
    trainings = [config.rows[row].training for row in config.chosen]
    trained = [one for one in trainings if one is not None]
    return Work(
        folder=folder,
        count=count,
        unit=do_row,
        finished=finished_units,
        progress=progress,
        what=f"experiment {name}",
        size=count,
        unit_name="rows",
        device=device_of_all(one.compute.device for one in trained),
    )


def progress(folder: Path) -> tuple[float, str]:
    """Return the share of the rows that are over, and how many of these failed."""
    config = read_config(folder)
    units = units_of(config)
    over, failed = len(finished_units(folder)), len(_failed_units(folder, config))
    return over / len(units), f"{failed} failed" if failed else ""


def report(made: Report, folder: Path) -> None:
    """Print what `fit_predictors` found, and where it lies."""
    print(*made.lines(), sep="\n")
    print(f"predictors in {folder}, report in {_report_folder(folder)}")


# --- before ---------------------------------------------------------------------------------------


def _folder(root: Path, name: str) -> Path:
    return folder_in(Path(root) / "runs", name).absolute()


def _report_folder(folder: Path) -> Path:
    name, root = name_and_root(folder, "runs")
    return root / "reports" / name


def _refuse_other_products(folder: Path) -> None:
    """Refuse names that a generator, or a report on generators, has."""
    for other in (folder, _report_folder(folder)):
        if (other / "config.yaml").exists():
            raise RunConflict(f"{other} is of another stage: give another --name, or remove it")


def _failed_units(folder: Path, config: ExperimentConfig) -> list[Unit]:
    records = {unit: read_record(folder, unit) for unit in units_of(config)}
    return [unit for unit, record in records.items() if record and "reason" in record]


def _take_changed_rows(folder: Path, config: ExperimentConfig) -> None:
    """Take new rows, and new settings of rows that have not finished under any seed."""
    if not _changed_rows(folder, config):  # a lock would ask for writing where all is finished
        return
    file, now = folder / "run" / "config.yaml", to_dict(config)
    with hold(folder / "run"):
        for name in _changed_rows(folder, config):
            for unit in units_there(folder, replace(config, only=(name,))):
                forget(folder, unit)
        begun = read_mapping(file)
        write_text(file, yaml.safe_dump(begun | {"rows": now["rows"]}, sort_keys=False))


def _changed_rows(folder: Path, config: ExperimentConfig) -> list[str]:
    """Return the rows that may be taken; none where something else differs, which is then told."""
    file = folder / "run" / "config.yaml"
    if not file.exists():
        return []
    begun, now = read_mapping(file), to_dict(config)
    before, rows = begun["rows"], now["rows"]
    changed = [name for name in before | rows if before.get(name) != rows.get(name)]
    others = [key for key, *_ in differences(begun | {"rows": rows}, now) if key not in FREE]
    is_told = others or any(_is_finished(folder, name) for name in changed)
    return [] if is_told else changed


def _is_finished(folder: Path, row: str) -> bool:
    files = (folder / "rows" / row).glob("seed-*/told.json")
    return any("reason" not in read_json(file) for file in files)


def _refuse_other_networks(run: RunFolder, origin: Origin) -> None:
    """Refuse to go on with other networks than it began with; reopen one that is widened."""
    folder = run.path.parent
    if not (folder / FILE).exists():
        return
    begun = Origin.read(folder)
    if begun != origin:
        raise RunConflict(
            f"{folder} was begun with {_words(begun)}, and now has {_words(origin)}: give another "
            "--name, or remove the folder"
        )
    config = read_config(folder)
    if run.summary is not None and len(finished_units(folder)) < len(units_of(config)):
        run.reopen()


def _words(origin: Origin) -> str:
    zoos = ", ".join(f"{one.name} of fingerprint {one.fingerprint}" for one in origin.zoos)
    return f"{zoos}, networks and values of digest {origin.digest}, start {origin.start}"


def _begin(experiment: Experiment, folder: Path, *, config: ExperimentConfig) -> None:
    """Keep what rows need; forget those that failed."""
    for unit in _failed_units(folder, config):
        forget(folder, unit)
    if not (folder / FILE).exists():
        experiment.write(folder)


def _run_rows(work: Work, run: Runner) -> str:
    """Run the rows; return what kept some from being over, in words."""
    try:
        if world().on_first(work.finished, work.folder) != set(range(work.count)):
            run(work)
    except WorkFailed as error:  # those that are over are reported
        return str(error)
    return ""


# --- afterwards -----------------------------------------------------------------------------------


def _finish(record: RunFolder, problem: str) -> Report:
    with hold(record.path, math.inf):  # of two that watched the same jobs, one after the other
        return _finish_alone(record, problem)


def _finish_alone(record: RunFolder, problem: str) -> Report:
    folder = record.path.parent
    config = read_config(folder)
    made = _report(folder, config, units_there(folder, config, every=True))
    reasons = {unit: _reason(folder, unit, problem) for unit in units_of(config)}
    failed = {unit: reason for unit, reason in reasons.items() if reason}
    if failed:
        raise WorkFailed(
            f"{len(failed)} of the rows of {folder} failed; {_report_folder(folder)} is on the "
            "others. Mend the cause and give the same command again:\n"
            + "\n".join(f"  {one.row} (seed {one.seed}): {why}" for one, why in failed.items())
        )
    record.finish(rows=len(config.chosen), seeds=config.seeds, scores=_scores(made))
    for one in (folder, _report_folder(folder)):
        sweep(one.rglob(LEFTOVERS))
    return made


def _finished_report(folder: Path) -> Report:
    """Read the report; write it again where it is on fewer rows than are finished."""
    config = read_config(folder)
    made = Report.load(_report_folder(folder))
    told = {(row.name, seed) for row in made.rows for seed in row.seeds}
    units = units_there(folder, config, every=True)
    if all((u.row, u.seed) in told for u in units if is_finished(folder, u)):
        return made
    with hold(folder / "run"):
        return _report(folder, config, units)


def _scores(made: Report) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return row -> property -> the scores on all test networks that trackers show."""
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for one in made.entries:
        if (one.subset, one.step) == (ALL, CHOSEN):
            told = {metric: one.scores[metric].mean for metric in _TRACKED}
            found.setdefault(one.row, {})[one.property] = told
    return found


def _reason(folder: Path, unit: Unit, problem: str) -> str:
    record = read_record(folder, unit)
    return record.get("reason", "") if record else problem or "it is not over"


def _report(folder: Path, config: ExperimentConfig, units: tuple[Unit, ...]) -> Report:
    told = [one for unit in units if (one := read_told(folder, unit, config=config)) is not None]
    if not told:
        records = [record for unit in units if (record := read_record(folder, unit)) is not None]
        reasons = {record["reason"] for record in records} or {"it is not over"}
        raise WorkFailed(f"no row of {folder} is finished:\n  " + "\n  ".join(sorted(reasons)))
    seconds = sum(sum(one.seconds.values()) for one in told)
    (name, root), place = name_and_root(folder, "runs"), _report_folder(folder)
    save_timing(folder / "run", seconds)
    record = Record.read(
        folder / "run",
        commands=[making_again("predictor", folder, parent="runs", records="run")],
        page=place,
        links=[("all reports", root / INDEX), ("predictors", folder)],
    )
    made = write_report(
        place,
        name,
        truth=read_truth(folder),
        told=told,
        baselines=[name for name, row in config.rows.items() if row.is_baseline],
        facts=_facts(folder, config),
        record=record,
        seed=config.seed,
    )
    renew_index(root)
    return made


def _facts(folder: Path, config: ExperimentConfig) -> dict[str, dict[str, Json]]:
    """Return what the experiment is on, by title, for the reader."""
    origin = Origin.read(folder)
    return {
        "zoos": {one.name: f"{one.architecture}, {one.fingerprint}" for one in origin.zoos},
        "networks": origin.counts | {"left out": origin.left_out},
        "split": {name: value for name, value in to_dict(config.split).items() if value},
    }
