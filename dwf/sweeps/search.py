"""Who proposes trials and who stops them: Optuna and ASHA, told what earlier attempts found.

What they know is rebuilt from the records of trials that are over: a sweep whose driver was killed
goes on from the disk alone.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial
from ray.tune import Callback, Stopper
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher

from dwf import preemption
from dwf.files import read_json
from dwf.metrics import Progress, read_metrics
from dwf.plain import Json
from dwf.run_folder import write_json
from dwf.sweeps.config import AxisConfig, SweepConfig
from dwf.sweeps.space import Bases, Point
from dwf.sweeps.trial import point_path, read_records, record_path
from dwf.sweeps.trials import make_trial

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


class OptunaSearch(Searcher):
    """Asks Optuna for points, numbers them, and tells it what came of them.

    Args:
        config: the sweep.
        folder: its folder; `trials/00003.point.json` keeps a point that was proposed.
        todo: numbers of the trials that are not over.
    """

    def __init__(self, config: SweepConfig, folder: Path, *, todo: list[int]):
        super().__init__()
        self.config, self.folder, self.todo = config, folder, list(todo)
        self.asked: dict[str, tuple[int, Any]] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        over = read_records(folder)
        # Seeded anew, or a sweep that goes on would propose its first points again.
        proposed = len(list(folder.glob("trials/*.point.json")))
        seed = int(np.random.SeedSequence([config.seed, proposed]).generate_state(1)[0])
        direction = "maximize" if config.sign > 0 else "minimize"
        sampler = optuna.samplers.TPESampler(seed=seed)
        self.study = optuna.create_study(direction=direction, sampler=sampler)
        self.distributions = {k: _distribution(axis) for k, axis in config.axes.items()}
        for record in over.values():
            self._add(record)

    def suggest(self, trial_id: str) -> dict[str, Json] | str:
        """Return the next trial."""
        if not self.todo:
            return Searcher.FINISHED
        number = self.todo.pop(0)
        file = point_path(self.folder, number)
        if file.exists():  # proposed to a driver that was killed
            self.study.enqueue_trial(self._numbers(read_json(file)))
        asked = self.study.ask(self.distributions)
        point = self._point(asked.params)
        write_json(file, point)
        self.asked[trial_id] = number, asked
        return {"trial": {"number": number, "point": point}}

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Tell Optuna what came of a trial, from its record."""
        number, asked = self.asked.pop(trial_id)
        record = read_records(self.folder).get(number, {})
        score = record.get("metrics", {}).get(self.config.metric)
        state = TrialState.FAIL if score is None else TrialState.COMPLETE
        self.study.tell(asked, score, state=state)

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        """Losses on the way are ASHA's concern."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what Optuna knows is in the records of trials."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    def _add(self, record: dict[str, Json]) -> None:
        score = record.get("metrics", {}).get(self.config.metric)
        if score is not None:
            params = self._numbers(record["point"])
            self.study.add_trial(
                create_trial(params=params, distributions=self.distributions, value=score)
            )

    def _numbers(self, point: Point) -> Point:
        """A listed value as Optuna sees it: its place in the list, which may hold anything."""
        axes = self.config.axes.items()
        return {k: axis.values.index(point[k]) if axis.is_list else point[k] for k, axis in axes}

    def _point(self, numbers: Point) -> Point:
        axes = self.config.axes.items()
        return {k: axis.values[numbers[k]] if axis.is_list else numbers[k] for k, axis in axes}


def _distribution(axis: AxisConfig) -> BaseDistribution:
    if axis.is_list:
        return CategoricalDistribution(range(len(axis.values)))
    low, high = axis.values
    if axis.integer is not None:
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=axis.log_uniform is not None)


def asha(config: SweepConfig, bases: Bases, *, folder: Path, steps: int) -> ASHAScheduler:
    """Return the scheduler, told the losses of trials that are over.

    Args:
        config: the sweep.
        bases: its stages' settings.
        folder: its folder.
        steps: of the generator that trains longest.
    """
    scheduler = ASHAScheduler(
        time_attr="step",
        metric="val_loss",
        mode="min",
        max_t=steps,
        grace_period=config.asha.grace,
        reduction_factor=config.asha.factor,
        stop_last_trials=False,
    )
    for number, record in read_records(folder).items():
        trial = make_trial(bases, number, point=record["point"])
        past = SimpleNamespace(trial_id=f"record-{number}")
        scheduler.on_trial_add(None, past)
        file = folder / "runs" / trial.generator_name / "metrics.jsonl"
        for line in read_metrics(file) if file.exists() else []:
            if "val_loss" in line and line["step"] < trial.generator.density.training.steps:
                scheduler.on_trial_result(None, past, line)
    return scheduler


class Watcher(Callback):
    """Shows how far the sweep is, and keeps a record of the trials that ASHA stopped."""

    def __init__(self, folder: Path, total: int):
        self.folder, self.total, self.bar = folder, total, None
        self.reasons: dict[int, str] = {}
        """Why trials are not over."""
        self.told: set[int] = set()
        """Those of them that said so themselves; the workers of the others died."""

    def setup(self, **info: object) -> None:
        """Begin to show."""
        done = len(read_records(self.folder))
        self.bar = Progress(f"sweep {self.folder.name}", self.total, unit="trials", done=done)
        self.bar.__enter__()

    def on_trial_complete(
        self, iteration: int, trials: list, trial: "Trial", **info: object
    ) -> None:
        """Record a trial that was stopped while it trained; one that ended has written its own."""
        told, last = trial.config["trial"], trial.last_result or {}
        if "problem" in last:
            self.reasons[told["number"]] = last["problem"]
            self.told.add(told["number"])
        file = record_path(self.folder, told["number"])
        stopped = "val_loss" in last and "problem" not in last and not preemption.is_asked()
        if stopped and not file.exists():
            at = {"step": last["step"], "val_loss": last["val_loss"]}
            seconds = {"trial": round(last.get("time_total_s", 0.0), 3)}
            record = told | {"state": "stopped", "stopped": at, "seconds": seconds}
            write_json(file, record)
        self.bar.update(len(read_records(self.folder)))

    def on_trial_error(
        self, iteration: int, trials: list, *, trial: "Trial", **info: object
    ) -> None:
        """Keep what a trial died of."""
        said = [line.strip() for line in str(trial.get_error()).splitlines() if line.strip()]
        self.reasons[trial.config["trial"]["number"]] = said[-1]

    def on_experiment_end(self, trials: list, **info: object) -> None:
        """Leave the last line."""
        self.bar.__exit__()

    def __getstate__(self) -> dict[str, object]:
        """Tune pickles its callbacks; a bar on a terminal cannot be."""
        return vars(self) | {"bar": None}


class StopWhenAsked(Stopper):
    """Ends the sweep where a signal asked this process to stop; trials go on from their saves."""

    def __call__(self, trial_id: str, result: dict[str, Json]) -> bool:
        """Stop no trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether a signal came."""
        return preemption.is_asked()
