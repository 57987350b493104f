"""One trial: its stages, each run once whichever trial comes to it first; then its numbers.

    sweeps/NAME/zoos, runs        what the stages write, named by `trials.name_of`
    sweeps/NAME/locks/STAGE-...   who works on which stage
    sweeps/NAME/trials/00003.point.json  what a trial tries
    sweeps/NAME/trials/00003.json a trial that is over; written last

A trial that is run again resumes from what its stages left.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dwf.errors import (
    ConfigError,
    DwfError,
    ShapeMismatch,
    SolverFailed,
    TooFewNetworks,
    TrainingDiverged,
    WorkFailed,
)
from dwf.files import read_json
from dwf.flags import name_and_root
from dwf.generators.config import GeneratorConfig
from dwf.names import folders_in
from dwf.pipeline import STAGES
from dwf.plain import Json
from dwf.ranks import alone
from dwf.run_folder import hold, write_json
from dwf.settings import build, find, read_yaml
from dwf.stages import Runner, run_here
from dwf.sweeps.config import SweepConfig
from dwf.sweeps.space import Point
from dwf.sweeps.trials import Trial, codec_name, codec_settings, make_trial
from dwf.yaml_files import read_mapping
from dwf.zoo.config import ZooConfig

if TYPE_CHECKING:  # a plan is made without torch
    from dwf.evaluation.measure import Yardstick
    from dwf.evaluation.report import NetworkSet
    from dwf.zoo.store import Zoo

# What follows from a trial's settings is an outcome; other errors can be mended and tried again.
OUTCOMES = (
    ConfigError,
    ShapeMismatch,
    SolverFailed,
    TooFewNetworks,
    TrainingDiverged,
    WorkFailed,
)
BASES = "stages.yaml"
SCORES = ("good_and_novel", "accurate", "distance_ratio", "overlap", "dispersion")
"""Figures that a sweep keeps of a set of networks besides its accuracy; see `NetworkSet.figure`."""
Tell = Callable[[dict[str, Json]], None]


def record_path(folder: Path, number: int) -> Path:
    """The record of a trial that is over."""
    return folder / "trials" / f"{number:05d}.json"


def read_records(folder: Path) -> dict[int, dict[str, Json]]:
    """Return the records of all trials that are over, by number."""
    files = sorted((folder / "trials").glob("?????.json"))
    return {int(file.stem): read_json(file) for file in files}


def point_path(folder: Path, number: int) -> Path:
    """The point of a trial that was begun: its number stands for no other."""
    return folder / "trials" / f"{number:05d}.point.json"


def read_points(folder: Path) -> dict[int, Point]:
    """Return the points of all trials that were begun, by number."""
    files = sorted((folder / "trials").glob("?????.point.json"))
    begun = {int(file.name[:5]): read_json(file) for file in files}
    return begun | {number: record["point"] for number, record in read_records(folder).items()}


def read_trial(folder: Path, number: int, *, point: dict[str, Json]) -> tuple[SweepConfig, Trial]:
    """Return the sweep's settings and a trial of it, from the sweep's folder alone."""
    file = folder / "config.yaml"
    config = build(SweepConfig, read_mapping(file), source=str(file))
    bases = read_mapping(folder / BASES)
    return config, make_trial(bases, number, point=point)


def run_trial(told: dict[str, Json]) -> None:
    """Run one trial in a worker of Ray Tune.

    A worker whose driver was killed may still be at it: one waits for the other, then finds the
    trial over, or goes on with it.

    Args:
        told: `folder` of the sweep, `trial` with its `number` and `point`.
    """
    from ray import tune

    folder = Path(told["folder"])
    number, point = told["trial"]["number"], told["trial"]["point"]
    try:
        with alone(), hold(folder / "locks" / f"trial-{number:05d}", seconds=math.inf):
            do_trial(folder, number, point=point, tell=tune.report)
    except DwfError as error:
        tune.report({"problem": str(error)})


def do_trial(folder: Path, number: int, *, point: dict[str, Json], tell: Tell) -> None:
    """Run one trial's stages and write its record; one that is over is left alone.

    Args:
        folder: the sweep's.
        number: the trial's.
        point: its values, one for each axis.
        tell: is told `step` and `val_loss` while the generator trains, where ASHA listens.

    Raises:
        DwfError: one that does not follow from the trial's settings.
    """
    import torch

    record = record_path(folder, number)
    if record.exists():
        return
    started, seconds = time.monotonic(), {}
    known: dict[str, Json] = {"number": number, "point": point}
    try:
        config, trial = read_trial(folder, number, point=point)
        known |= {"names": trial.names}
        torch.set_num_threads(max(1, int(config.cpus)))  # follows from the settings, not the node
        listener = tell if config.scheduler == "asha" else None
        known |= {"metrics": _run_stages(trial, folder, listener, seconds), "state": "finished"}
    except OUTCOMES as error:
        known |= {"state": "failed", "reason": str(error)}
    seconds["trial"] = time.monotonic() - started
    known["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    write_json(record, known)


def _run_stages(
    trial: Trial, folder: Path, listener: Tell | None, seconds: dict[str, float]
) -> dict[str, float | None]:
    own = {"zoo": make_zoo, "codec": _fit_codec, "generator": partial(_fit, listener=listener)}
    for stage, config, name in trial.stages:
        with _stage(folder, stage, name, seconds):
            run = own[stage] if stage in own else STAGES[stage].run
            run(config, folder, name=name)
    with _stage(folder, "validate", f"validation-{trial.samples_name}", seconds):
        return _validate(trial, folder)


@contextlib.contextmanager
def _stage(folder: Path, stage: str, name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Run a stage that other trials may share: who comes second waits, and finds it finished."""
    asked = time.monotonic()
    with hold(folder / "locks" / name, seconds=math.inf):
        begun = time.monotonic()
        seconds["waited"] = seconds.get("waited", 0.0) + begun - asked
        yield
        seconds[stage] = time.monotonic() - begun


def make_zoo(
    config: ZooConfig,
    folder: Path,
    *,
    name: str,
    run: Runner = run_here,
    known: Path | None = None,
) -> None:
    """Link a finished zoo of the same settings that is known, or train one.

    Args:
        config: the zoo's settings.
        folder: holds `zoos/`, as a sweep's does.
        name: the zoo's.
        run: runs the units of training; default: one after the other, here.
        known: folder of the zoos that are known; default: those of the root that the sweep is in.
    """
    from dwf.zoo.stage import train_zoo
    from dwf.zoo.store import is_whole

    path = folder / "zoos" / name
    if path.is_symlink():
        if is_whole(path):
            return
        path.unlink()  # the zoo was removed
    known = known or name_and_root(folder, "sweeps")[1] / "zoos"
    there = None if path.exists() else _finished_zoo(config, known)
    if there is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(there, path.parent))
    else:
        train_zoo(config, folder, name=name, run=run)


def _finished_zoo(config: ZooConfig, zoos: Path) -> Path | None:
    from dwf.zoo.store import is_whole

    for zoo in folders_in(zoos):
        file = zoo / "run" / "config.yaml"
        if not file.with_name("done.json").exists():
            continue
        with contextlib.suppress(ConfigError):  # of another version, or of no zoo that was trained
            made = build(ZooConfig, read_yaml(file), source=str(file))
            if made == config and is_whole(zoo):
                return zoo
    return None


def _fit_codec(config: GeneratorConfig, folder: Path, name: str) -> None:
    """Fit the codec in a run of its own, as `Generator.fit` would within the generator's."""
    from dwf.codecs.codec import codec_folder
    from dwf.codecs.config import CODECS
    from dwf.generators.learning import learning_of_codec
    from dwf.generators.looking import fit_codec
    from dwf.run_folder import RunFolder
    from dwf.zoo.store import Zoo

    zoos, settings = folder / "zoos", codec_settings(config)
    run = RunFolder(folder / "runs" / name, settings)
    if run.summary is not None:
        return
    zoo = Zoo.open(zoos / config.zoo)
    learning = learning_of_codec(config, zoo, zoos=zoos)
    codec = find(CODECS, config.codec.kind)(config.codec)
    fit_codec(codec, learning, subject=zoo.facts.subject, run=run, seed=settings["seed"])
    codec.save(codec_folder(run))
    run.finish()


def _fit(config: GeneratorConfig, folder: Path, name: str, listener: Tell | None = None) -> None:
    """Fit the generator, its codec linked to where `_fit_codec` put it."""
    link = folder / "runs" / name / "codec"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(Path("..") / codec_name(config) / "codec")
    with _heard(listener, config):
        STAGES["generator"].run(config, folder, name=name)


@contextlib.contextmanager
def _heard(listener: Tell | None, config: GeneratorConfig) -> Iterator[None]:
    """Tell of the validation losses of what is trained within."""
    if listener is None:
        yield
        return
    from dwf.training.loop import heard_by

    last = config.density.training.steps

    def hear(step: int, val_loss: float | None) -> None:
        if val_loss is None:
            raise ConfigError("scheduler = 'asha' needs validation networks: set split.val above 0")
        if step < last:  # a generator that is fitted to the end is not stopped before it is judged
            listener({"step": step, "val_loss": val_loss})

    with heard_by(hear):
        yield


def _validate(trial: Trial, folder: Path) -> dict[str, float | None]:
    """Return the numbers of a trial's samples on validation networks and images."""
    from dwf.devices import find_device
    from dwf.evaluation.measure import Yardstick
    from dwf.generators.subset import rows_learnt_from
    from dwf.zoo.store import Zoo

    zoo = Zoo.open(folder / "zoos" / trial.frame)
    samples = Zoo.open(folder / "zoos" / trial.samples_name)
    report = trial.report
    yardstick = Yardstick(
        zoo,
        zoo.load_data(),
        device=find_device(report.device).type,
        split="val",
        batchnorm=report.batchnorm,
        workers=report.workers,
        rows=rows_learnt_from(zoo, samples),
    )
    return judge(samples, yardstick) | {"val_loss": _val_loss(trial, folder)}


def judge(samples: "Zoo", yardstick: "Yardstick") -> dict[str, float | None]:
    """Return what a sweep's table keeps of a zoo of samples, measured by a `Yardstick`."""
    import numpy as np

    from dwf.evaluation.report import network_set

    scored = network_set(
        samples.name,
        "samples",
        measured=yardstick.measure_zoo(samples, np.arange(len(samples))),
        limits=yardstick.limits,
        zoo_spread=yardstick.originals.spread,
        split=yardstick.split,
        labels={},
        more={},
    )
    return summarise(scored)


def summarise(one: "NetworkSet") -> dict[str, float | None]:
    """Return what a sweep's table keeps of a set of networks in a report."""
    accuracy = {one.scored: one.figure(one.scored), f"{one.scored}_std": one.accuracy["std"]}
    return {"n": one.n} | accuracy | {name: one.figure(name) for name in SCORES}


def _val_loss(trial: Trial, folder: Path) -> float | None:
    done = read_json(folder / "runs" / trial.generator_name / "done.json")
    return done["density"].get("val_loss")
