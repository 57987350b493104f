"""The sweep stage: plan, zoos, trials under Ray Tune, then one report over all of them."""

import contextlib
import logging
import math
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from dwf import preemption
from dwf.errors import RunConflict, WorkFailed
from dwf.metrics import logger
from dwf.ranks import alone
from dwf.run_folder import RunFolder, differences, hold, write_text
from dwf.settings import load, to_dict
from dwf.sweeps.config import SweepConfig
from dwf.sweeps.plan import Trial, most_steps, plan_trial, plan_trials
from dwf.sweeps.report import SweepReport, write_report
from dwf.sweeps.space import Bases, read_bases
from dwf.sweeps.trial import BASES, make_zoo, read_records, run_trial

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


def run_sweep(config: SweepConfig, root: Path, name: str, run: Any = None) -> SweepReport:
    """Run a sweep in `root/sweeps/name`, or go on with one; trials that are over are kept.

    Trials run on the Ray that this process is connected to; without one Ray Tune starts it. What
    trials agree in is made once: see `plan.Trial`. A finished zoo of the same settings in
    `root/zoos` is linked, not trained again.

    Args:
        config: the sweep's settings.
        root: folder that holds `sweeps/` and `zoos/`.
        name: the sweep's name.
        run: runs the units of zoos that are known beforehand (see `zoo.stage.train_zoo`).

    Returns:
        The report: every trial on validation data, and on test data, which chose nothing.

    Raises:
        ConfigError: the space names a setting that is not there, or a value not in its range.
        RunConflict: the folder holds another sweep, or another process works on this one.
        WorkFailed: trials failed for reasons outside their settings, and the others are kept; or
            no trial was finished.
        Preempted: a signal asked to stop.
    """
    from dwf.sweeps.curves import write_curves
    from dwf.sweeps.figures import draw_trials

    bases = read_bases(config)
    plan_trials(config, bases)  # what is refused leaves no folder behind
    folder = (Path(root) / "sweeps" / name).absolute()
    with alone(), hold(folder):
        record = RunFolder(folder, config)
        config = load(SweepConfig, record.config_path)  # of equal spaces the first's order counts
        trials = plan_trials(config, bases)
        refuse_other_bases(folder, bases)
        if record.summary is not None:
            logger.info("sweep %s is finished already: %s", name, folder)
            return SweepReport.load(folder)
        if config.search != "optuna":
            _make_zoos(trials, folder, run)
        _run_trials(config, bases, trials, folder)
        finished = _finished_trials(bases, folder)
        report = write_report(config, name, folder, finished, read_records(folder))
        draw_trials(report, folder / "trials.png")
        write_curves(report, folder)
        record.finish(best=report.best, trials=len(report.rows))
        return report


def refuse_other_bases(folder: Path, bases: Bases) -> None:
    """Keep what the stages' settings files say; refuse a sweep that began with others.

    Raises:
        RunConflict: a setting differs.
    """
    file = folder / BASES
    if not file.exists():
        write_text(file, yaml.safe_dump(to_dict(bases), sort_keys=False))
        return
    for key, before, now in differences(yaml.safe_load(file.read_text()), to_dict(bases)):
        raise RunConflict(
            f"{folder} was begun with {key} = {before!r}, which is now {now!r}: change it back, "
            "give another --name, or remove the folder"
        )


def _make_zoos(trials: list[Trial], folder: Path, run: Any) -> None:
    """Train the zoos first: their shards then fill the machine, while a trial has one share."""
    done = read_records(folder)
    wanted = {trial.zoo_name: trial for trial in trials if trial.number not in done}
    for name, trial in wanted.items():
        with hold(folder / "locks" / name, seconds=math.inf):
            make_zoo(trial, folder, run)


def _run_trials(config: SweepConfig, bases: Bases, trials: list[Trial], folder: Path) -> None:
    total = config.trials if config.search == "optuna" else len(trials)
    for _ in range(_ROUNDS):
        left = _missing(total, folder)
        if not left:
            return
        watcher = _tune(config, bases, trials, folder, left)
        left = _missing(total, folder)
        if left and preemption.is_asked():
            preemption.stop()
        if set(left) <= watcher.told:  # no worker died: again would not help
            break
    if left:
        lines = [f"  trial {n}: {watcher.reasons.get(n, 'its worker died')}" for n in left[:20]]
        raise WorkFailed(
            f"{len(left)} of {total} trials of {folder} failed; the others are kept. Mend the "
            "cause and give the same command again:\n" + "\n".join(lines)
        )


def _missing(total: int, folder: Path) -> list[int]:
    over = read_records(folder)
    return [number for number in range(total) if number not in over]


def _tune(
    config: SweepConfig, bases: Bases, trials: list[Trial], folder: Path, todo: list[int]
) -> Any:
    """Run trials under Ray Tune; return the watcher, who knows what went wrong."""
    os.environ.update(_TUNE)
    from ray import tune

    from dwf.sweeps import search

    shutil.rmtree(folder / "tune", ignore_errors=True)  # of an attempt that was killed
    space: dict[str, Any] = {"folder": str(folder)}
    algorithm = scheduler = None
    if config.search == "optuna":
        algorithm = search.OptunaSearch(config, folder, todo)
    else:
        listed = [{"number": n, "point": trials[n].point} for n in todo]
        space["trial"] = tune.grid_search(listed)
    if config.scheduler == "asha":
        scheduler = search.asha(config, bases, folder, most_steps(config, trials))
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
    with open(folder / "tune.txt", "w") as file, contextlib.redirect_stdout(file):
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
        plan_trial(bases, number, one["point"])
        for number, one in records.items()
        if states[number] == "finished"
    ]
