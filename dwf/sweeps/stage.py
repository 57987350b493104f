"""The sweep stage: zoos, trials under Ray Tune, then one report over all of them."""

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from dwf import preemption
from dwf.datasets.config import AnyDataConfig
from dwf.datasets.own import identified
from dwf.errors import RunConflict, WorkFailed
from dwf.extras import require
from dwf.flags import making_again
from dwf.metrics import read_metrics, table_console
from dwf.names import folder_in
from dwf.plain import Json
from dwf.ranks import alone
from dwf.run_folder import LEFTOVERS, METRICS, RunFolder, hold, sweep, write_json, write_text
from dwf.same_settings import differences
from dwf.settings import build, flatten, load, to_dict
from dwf.stages import Product, Runner, run_here, stage
from dwf.sweeps.config import SweepConfig
from dwf.sweeps.report import SweepReport, write_report
from dwf.sweeps.space import Bases, read_bases
from dwf.sweeps.trial import BASES, make_zoo, point_path, read_points, read_records, run_trial
from dwf.sweeps.trials import Trial, describe_plan, list_trials, make_trial, most_steps
from dwf.trackers import numbers_in
from dwf.yaml_files import read_mapping

if TYPE_CHECKING:
    from dwf.sweeps.search import Watcher

# Tune writes for tools that nobody here reads, and would take Ctrl-C for itself.
_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# A node that dies can use up the retries of its trials before Ray knows that it is gone.
_ROUNDS = 3

SWEEP = Product("sweep")
_TABLE_WIDTH = 140


def plan(config: SweepConfig, root: Path, *, name: str) -> str:
    """Return in words what `run_sweep` would run: trials or the space, and what they share."""
    folder = folder_in(Path(root) / "sweeps", name)
    return describe_plan(
        config,
        read_bases(config),
        folder=folder,
        begun=read_points(folder),
        over=read_records(folder),
    )


def run_sweep(config: SweepConfig, root: Path, *, name: str, run: Runner = run_here) -> SweepReport:
    """Run a sweep in `root/sweeps/name`, or go on with one; trials that are over are kept.

    A grid may be given again with other values of its axes, or others left out: what is new is run,
    and the report is on all trials that are over. So may `random` and `optuna` with more trials.

    Trials run on the Ray that this process is connected to; without one Ray Tune starts it. What
    trials agree in is made once: see `trials.Trial`. A finished zoo of the same settings in
    `root/zoos` is linked, not trained again.

    Args:
        config: the sweep's settings.
        root: folder that holds `sweeps/` and `zoos/`.
        name: the sweep's name.
        run: runs the units of zoos that are known beforehand (see `zoo.stage.train_zoo`).

    Returns:
        The report: every trial on validation data, and on test data, which chose nothing.

    Raises:
        ConfigError: the space names a setting that is not there, or a value not in its range, or
            Ray or Optuna is not installed.
        RunConflict: the folder holds another sweep, or another process works on this one.
        WorkFailed: trials failed for reasons outside their settings, and the others are kept; or
            no trial was finished.
        Preempted: a signal asked to stop.
    """
    from dwf.evaluation.report import INDEX, Record, renew_index, save_timing
    from dwf.sweeps.curves import write_curves
    from dwf.sweeps.figures import draw_trials
    from dwf.sweeps.page import FILE, headline, sweep_page

    require("ray", "optuna", who="a sweep")
    bases = read_bases(config)
    trials = list_trials(config, bases)  # what is refused leaves no folder behind
    bases = without_paths(bases, trials)
    folder = (folder_in(Path(root) / "sweeps", name)).absolute()
    done = replace(SWEEP, is_whole=lambda folder: not _todo(*_as_recorded(folder, bases), folder))
    free = config.widened_by
    with alone(), stage(done, folder, config=config, free=free, has_workers=True) as record:
        if record is None:
            return SweepReport.load(folder)
        record.reopen()  # where it was finished, more was asked of it
        config, bases = _as_recorded(folder, bases)
        begin_trials(config, bases, folder=folder)
        if config.search != "optuna":
            _make_zoos(list(_todo(config, bases, folder).values()), folder, run)
        _run_trials(config, bases, folder)
        finished = _finished_trials(bases, folder)
        made = write_report(
            config, name, folder=folder, finished=finished, records=read_records(folder)
        )
        figures = draw_trials(made, folder) | write_curves(made, folder)
        _show_trials(record, read_records(folder))
        save_timing(folder, sum(row["seconds"] for row in made.rows))
        told = Record.read(
            folder,
            page=folder,
            commands=[making_again("sweep", folder, parent="sweeps")],
            links=[("all reports", Path(root) / INDEX)],
        )
        write_text(folder / FILE, sweep_page(made, told, figures=figures))
        record.finish(best=made.best, trials=len(made.rows), headline=headline(made))
        sweep(folder.rglob(LEFTOVERS))
    renew_index(Path(root))
    return made


def without_paths(bases: Bases, trials: Sequence[Trial]) -> Bases:
    """Return stages' settings by which own data are found without a path, and prepare these.

    Args:
        bases: as the files say.
        trials: that the data are for; each has them in its own size.

    Raises:
        ConfigError, DataUnavailable: as `own.identified`.
    """
    for data in dict.fromkeys(trial.zoo.data for trial in trials):
        identified(data)
    zoos = {file: _with_identified(said, file) for file, said in bases["zoo"].items()}
    return bases | {"zoo": zoos}


def _with_identified(said: dict[str, Json], file: str) -> dict[str, Json]:
    if "data" not in said:
        return said
    data = build(AnyDataConfig, said["data"], source=file, key="data")
    found = identified(data)
    return said if found == data else said | {"data": to_dict(found)}


def _show_trials(record: RunFolder, records: dict[int, dict[str, Json]]) -> None:
    """Let trackers show what each trial tried and what came of it, its number as the step."""
    for tracker in record.trackers():
        for number, one in sorted(records.items()):
            found = numbers_in(one.get("metrics", {}))
            run = record.path / "runs" / one.get("names", {}).get("generator", "")
            losses = read_metrics(run / METRICS) if (run / METRICS).exists() else []
            tracker.show_trial(number, flatten(one["point"]), found=found, losses=losses)
        tracker.close()


def report(made: SweepReport, folder: Path) -> None:
    """Print the table of what `run_sweep` found, and where the rest lies."""
    table_console(_TABLE_WIDTH).print(made.table())
    print(f"report: {folder / 'sweep.html'}")
    print(f"all trials: {folder / 'table.csv'}; best settings: {folder / 'best'}")
    if (folder / "curves.md").exists():
        print(f"curves: {folder / 'curves.png'}, {folder / 'curves.md'}")


def _as_recorded(folder: Path, bases: Bases) -> tuple[SweepConfig, Bases]:
    """Return the sweep's settings, of equal spaces in the first's order, and its stages'."""
    return load(SweepConfig, folder / "config.yaml"), merge_bases(folder, bases)


def merge_bases(folder: Path, bases: Bases) -> Bases:
    """Return what the stages' settings files say, those of trials that were begun among them.

    Raises:
        RunConflict: a settings file said otherwise when the sweep began.
    """
    file = folder / BASES
    kept = read_mapping(file) if file.exists() else {}
    both = {kind: kept.get(kind, {}) | files for kind, files in to_dict(bases).items()}
    for kind, files in kept.items():
        now = {name: both[kind][name] for name in files}
        for key, before, after in differences({kind: files}, {kind: now}):
            raise RunConflict(
                f"{folder} was begun with {key} = {before!r}, which is now {after!r}: change it "
                "back, give another --name, or remove the folder"
            )
    return both


def begin_trials(config: SweepConfig, bases: Bases, *, folder: Path) -> None:
    """Keep all that a worker needs to run a trial: stages' settings, and each trial's point."""
    write_text(folder / BASES, yaml.safe_dump(to_dict(bases), sort_keys=False))
    if config.search == "optuna":
        return  # proposes its points one by one
    begun = read_points(folder)
    for trial in list_trials(config, bases, begun=begun):
        if trial.number not in begun:
            write_json(point_path(folder, trial.number), trial.point)


def _make_zoos(trials: list[Trial], folder: Path, run: Runner) -> None:
    """Train the zoos first: their shards then fill the machine, while a trial has one share."""
    for name, trial in {trial.zoo_name: trial for trial in trials}.items():
        with hold(folder / "locks" / name, seconds=math.inf):
            make_zoo(trial.zoo, folder, name=name, run=run)


def _run_trials(config: SweepConfig, bases: Bases, folder: Path) -> None:
    left = _todo(config, bases, folder)
    for _ in range(_ROUNDS):
        if not left:
            return
        watcher = _tune(config, bases, folder, left)
        left = _todo(config, bases, folder)
        if left and preemption.is_asked():
            preemption.stop()
        if left.keys() <= watcher.told:  # no worker died: again would not help
            break
    if left:
        told = [f"  trial {n}: {watcher.reasons.get(n, 'its worker died')}" for n in left]
        raise WorkFailed(
            f"{len(left)} of {watcher.total} trials of {folder} failed; the others are kept. Mend "
            "the cause and give the same command again:\n" + "\n".join(told[:20])
        )


def _todo(config: SweepConfig, bases: Bases, folder: Path) -> dict[int, Trial | None]:
    """Return the trials that are not over by number; None: Optuna proposes what is tried."""
    over = read_records(folder)
    if config.search == "optuna":
        return {number: None for number in range(config.trials) if number not in over}
    trials = list_trials(config, bases, begun=read_points(folder))
    return {trial.number: trial for trial in trials if trial.number not in over}


def _tune(
    config: SweepConfig, bases: Bases, folder: Path, todo: dict[int, Trial | None]
) -> "Watcher":
    """Run trials under Ray Tune; return the watcher, who knows what went wrong."""
    os.environ.update(_TUNE)
    from ray import tune

    from dwf.sweeps import search

    shutil.rmtree(folder / "tune", ignore_errors=True)  # of an attempt that was killed
    space: dict[str, Json] = {"folder": str(folder)}
    algorithm = scheduler = None
    if config.search == "optuna":
        algorithm = search.OptunaSearch(config, folder, todo=list(todo))
    else:
        listed = [{"number": n, "point": trial.point} for n, trial in todo.items()]
        space["trial"] = tune.grid_search(listed)
    if config.scheduler == "asha":
        steps = most_steps(config, list_trials(config, bases))
        scheduler = search.asha(config, bases, folder=folder, steps=steps)
    resources = {"cpu": config.cpus, "gpu": config.gpus}
    watcher = search.Watcher(folder, len(todo) + len(read_records(folder)))
    tuner = tune.Tuner(
        tune.with_resources(run_trial, resources),
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=algorithm,
            scheduler=scheduler,
            num_samples=len(todo) if algorithm else 1,
            max_concurrent_trials=config.concurrent,
            reuse_actors=True,  # a new one would import torch anew
            trial_dirname_creator=lambda trial: f"{trial.config['trial']['number']:05d}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            stop=search.StopWhenAsked(),
            failure_config=tune.FailureConfig(max_failures=config.retries),
            callbacks=[watcher],
            verbose=0,
        ),
    )
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses the files it was told to skip
    with open(folder / "tune.txt", "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        tuner.fit()
    return watcher


def _finished_trials(bases: Bases, folder: Path) -> list[Trial]:
    records = read_records(folder)
    states = {number: one["state"] for number, one in records.items()}
    if "finished" not in states.values():
        reasons = {one["reason"] for one in records.values() if "reason" in one}
        raise WorkFailed(
            f"none of {len(records)} trials of {folder} was finished. Mend the cause, remove "
            f"{folder / 'trials'} and give the same command again:\n" + "\n".join(sorted(reasons))
        )
    return [
        make_trial(bases, number, point=one["point"])
        for number, one in records.items()
        if states[number] == "finished"
    ]
