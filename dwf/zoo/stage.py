"""The zoo stage: train every shard, then close the zoo.

A shard is the unit of work: `train_shard(folder, index)` is idempotent, needs nothing but the
zoo's folder, and leaves one whole file. Whoever calls `train_zoo` says where units run.
"""

import contextlib
import dataclasses
import math
import shutil
import time
from pathlib import Path

import numpy as np

from dwf.datasets.known import input_shape
from dwf.datasets.load import load_dataset
from dwf.datasets.own import identified
from dwf.errors import ConfigError, NotAZoo, TooFewNetworks
from dwf.files import read_json
from dwf.metrics import logger
from dwf.names import folder_in
from dwf.networks.functional import build_network, is_stacked
from dwf.plain import Json
from dwf.randomness import threads
from dwf.run_folder import LEFTOVERS, RunFolder, hold, sweep, write_json
from dwf.settings import build
from dwf.stages import Runner, Work, run_here, stage
from dwf.yaml_files import read_mapping
from dwf.zoo import grow, roster
from dwf.zoo.cohorts import assemble
from dwf.zoo.config import ZooConfig
from dwf.zoo.facts import FILE, Facts, Method, Sound
from dwf.zoo.layout import Layout
from dwf.zoo.misfit import find_sound, refuse_foreseen, refuse_misfit
from dwf.zoo.progress import reporter
from dwf.zoo.shard import shard_name
from dwf.zoo.store import ZOO, Zoo, create_zoo, finish_zoo


def plan(config: ZooConfig, root: Path, *, name: str) -> str:
    """Return in words what `train_zoo` would train: networks, shards, cohorts, bytes.

    Raises:
        ConfigError: the networks' inputs or classes are not those of the data.
    """
    refuse_foreseen(config)
    network = build_network(config.network)
    layout = Layout.of(network)
    rows = config.num_networks * config.most_rows
    kept = "rows kept" if config.keep is None else "rows kept at most"
    if is_stacked(network):
        size = roster.cohort_size(
            config, layout.size, num_inputs=math.prod(input_shape(config.data))
        )
        cohorts = f"cohorts of up to {size}"
    elif config.cohort:
        cohorts = f"cohorts of up to {min(config.cohort, config.shard_size)}"
    else:
        cohorts = "one by one, unless a short timing finds cohorts faster"
    widens = f" (numbers {config.first} to {config.count - 1})" if config.first else ""
    return (
        f"{config.num_networks} networks{widens} of {layout.size:,} weights on "
        f"{config.data.title}, "
        f"{config.recipe.epochs} epochs each, {rows} {kept} -> {_folder(root, name)}\n"
        f"{config.num_shards} shards of up to {config.shard_size} networks, {cohorts}; "
        f"{rows * layout.size * 4 / 2**20:,.1f} MiB of weights"
    )


def train_zoo(config: ZooConfig, root: Path | str, *, name: str, run: Runner = run_here) -> Zoo:
    """Train a zoo into `root/zoos/name`, or go on with one; a shard that is lost is made again.

    A zoo that is finished grows by a larger `count`: see `zoo.grow`.

    Args:
        config: the zoo's settings.
        root: folder that holds `zoos/`.
        name: the zoo's name.
        run: runs the units: `run_here`, or a runner of `dwf.cluster`.

    Raises:
        ConfigError: the networks' inputs or classes are not those of the data.
        RunConflict: the folder holds a zoo of other settings, or another process trains it.
        WorkFailed: shards failed; the others are whole.
        TooFewNetworks: the zoo is whole, and none of its networks became a row.
        StillRunning: the runner left the work to others; call again to look.
    """
    root = Path(root)
    started, asked = time.monotonic(), name
    config, name = grow.target_of(config, root, name=name)
    record = begin_zoo(config, root, name=name)
    if record is not None:
        run(work(config, root, name=name))  # the runner holds the folder, here or in jobs
        with hold(record.path, math.inf):  # of two that watched the same jobs, one after the other
            zoo = _finish(config, record, time.monotonic() - started)
    grow.join(config, _folder(root, name))
    made = zoo if record and name == asked else Zoo.open(_folder(root, asked))
    _refuse_empty(made)
    return made


def begin_zoo(config: ZooConfig, root: Path, *, name: str) -> RunFolder | None:
    """Make a zoo's folder with all that its units read; None where the zoo is finished.

    Raises:
        ConfigError, RunConflict: see `train_zoo`.
    """
    config = dataclasses.replace(config, data=identified(config.data))
    folder, sound = _folder(root, name), None
    if not (folder / "run").exists():  # before a folder of these settings is there
        sound = refuse_misfit(config)
    with stage(ZOO, folder, config=config, has_workers=True) as record:
        if record is not None:
            _create(config, folder, sound)
        return record


def report(zoo: Zoo) -> None:
    """Print what `train_zoo` made."""
    print(f"{len(zoo)} rows in {zoo.path}")


def _folder(root: Path, name: str) -> Path:
    return folder_in(Path(root) / "zoos", name)


def _finish(config: ZooConfig, record: RunFolder, seconds: float) -> Zoo:
    folder = record.path.parent
    zoo = finish_zoo(folder)
    _tell_networks_without_row(config, zoo)
    if record.summary is None:  # else a lost shard was made again, and what was said holds
        _write_curves(config, record)
        record.finish(**_summary(zoo), seconds=round(seconds, 2))
    shutil.rmtree(_work_folder(folder), ignore_errors=True)
    sweep(folder.rglob(LEFTOVERS))
    return zoo


def _refuse_empty(zoo: Zoo) -> None:
    """Raise where no network became a row: nothing can be made of such a zoo."""
    if not len(zoo):
        raise TooFewNetworks(
            f"{zoo.path} is finished and has 0 rows: {len(zoo.diverged)} networks diverged, the "
            "others were never good enough for `keep`: lower recipe.learning_rate or what `keep` "
            "asks for, and give another --name"
        )


def _tell_networks_without_row(config: ZooConfig, zoo: Zoo) -> None:
    without = config.num_networks - len(np.unique(zoo.columns.get("network", [])))
    if without:
        lost = len(zoo.diverged)
        logger.warning(
            "%d of %d networks have no row: %d diverged, %d were never good enough for `keep`",
            *(without, config.num_networks, lost, without - lost),
        )


def train_shard(folder: Path, index: int) -> None:
    """Train one shard of the zoo in `folder`: the unit of work.

    Resumes what an earlier attempt left; a shard that is whole is left alone.
    """
    from dwf.zoo.cohorts import Cohort

    config = _read_config(folder)
    facts = Facts.read(folder)
    method = _recorded_method(folder, facts)
    target = folder / shard_name(index, facts.num_shards)
    if target.exists():
        return
    with threads(1):  # the bytes depend on it
        data = load_dataset(config.data)
        of_cohorts = roster.cohorts_of_shard(config, index, size=method.cohort)
        begun = _work_folder(folder)
        cohorts = [
            Cohort(config, networks, data=data, folder=begun, method=method)
            for networks in of_cohorts
        ]
        for done, cohort in enumerate(cohorts):
            if not cohort.done_path.exists():
                cohort.train(reporter(_progress_file(folder, index), done, total=len(cohorts)))
                cohort.forget()
        assemble(config, facts, index=index, target=target, cohorts=cohorts)


def finished_shards(folder: Path) -> set[int]:
    """Return which shards of the zoo in `folder` are whole: those that have their final name."""
    return {int(file.name.split("-")[1]) for file in folder.glob("shard-*-of-*.h5")}


def work(config: ZooConfig, root: Path, *, name: str) -> Work:
    """Return the shards of a zoo as units of work."""
    folder = _folder(root, name)
    return Work(
        folder=folder.absolute(),
        count=config.num_shards,
        unit=train_shard,
        finished=finished_shards,
        progress=training_progress,
        what=f"train zoo {name}",
        size=config.num_networks,
        unit_name="networks",
        device=_device_of(config, folder),
    )


def _device_of(config: ZooConfig, folder: Path) -> str:
    """Return the device of the training: as recorded; before that, as the settings say."""
    if (folder / FILE).exists():
        return _method_of(folder, Facts.read(folder)).device
    from dwf.devices import find_device

    return find_device(config.compute.device, elsewhere=True).type


def _create(config: ZooConfig, folder: Path, sound: Sound | None) -> None:
    if (folder / FILE).exists():
        _tell_other_source(config, folder)
        return
    from dwf.zoo.cohorts import Choice, choose_method

    layout, data = Layout.of(build_network(config.network)), load_dataset(config.data)
    sound = sound or find_sound(config, data)
    widened = grow.method_of(config, folder)  # by no timing anew: all are computed likewise
    choice = Choice(widened, {}) if widened else choose_method(config, data)
    if choice.seconds:  # not in `zoo.json`: equal zoos are equal files
        write_json(folder / "run" / "timing.json", choice.seconds)
    create_zoo(
        folder,
        roster.facts(config, layout, method=choice.method, input_shape=data.shape, sound=sound),
    )


def _tell_other_source(config: ZooConfig, folder: Path) -> None:
    """Try a network again whose source has changed since the zoo was begun, and tell of it."""
    if not config.network.is_foreign:
        return
    known = Facts.read(folder).sound
    if find_sound(config, load_dataset(config.data), known=known) != known:
        logger.warning(
            "%s: the source of %s is another than when this zoo was begun; it passes the same "
            "checks, but rows of before were trained with what it was",
            *(folder / FILE, config.network.target),
        )


def _method_of(folder: Path, facts: Facts) -> Method:
    """How this zoo's cohorts are computed, decided before the first is trained."""
    if facts.method is None:
        raise NotAZoo(
            f"{folder / FILE}: method is missing, which every zoo that is trained says: remove the "
            "folder and train the zoo again"
        )
    return facts.method


def _recorded_method(folder: Path, facts: Facts) -> Method:
    """How it is computed, here."""
    import torch

    method = _method_of(folder, facts)
    if method.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "zoo.json says method.device = cuda, and this machine shows no GPU: train this zoo "
            "where there is one, or a new one under another --name with --compute.device cpu"
        )
    return method


def _read_config(folder: Path) -> ZooConfig:
    file = folder / "run" / "config.yaml"
    return build(ZooConfig, read_mapping(file), source=str(file))


def _work_folder(folder: Path) -> Path:
    return folder / "run" / "work"


# --- progress ----------------------------------------------------------------------------------


def _progress_file(folder: Path, index: int) -> Path:
    return _work_folder(folder) / f"progress-{index:05d}.json"


def training_progress(folder: Path) -> tuple[float, str]:
    """Return the share of the networks' training that is done, and a validation accuracy."""
    config = _read_config(folder)
    done, accuracies = finished_shards(folder), []
    networks: float = sum(len(roster.networks_of_shard(config, index)) for index in done)
    for file in _work_folder(folder).glob("progress-*.json"):
        index = int(file.stem.split("-")[1])
        with contextlib.suppress(FileNotFoundError):  # another launch has just finished the zoo
            told = read_json(file, keys=("share", "val_accuracy"))
            if index not in done:
                networks += told["share"] * len(roster.networks_of_shard(config, index))
                accuracies += [told["val_accuracy"]] * (told["val_accuracy"] is not None)
    share = networks / config.num_networks
    return share, f"val accuracy {100 * np.mean(accuracies):.2f} %" if accuracies else ""


# --- what the run folder says ------------------------------------------------------------------


def _write_curves(config: ZooConfig, record: RunFolder) -> None:
    """Mean losses and validation accuracy of each epoch, over all cohorts."""
    files = sorted(_work_folder(record.path.parent).glob("cohort-???????.json"))
    curves = [read_json(file, keys=("curve",))["curve"] for file in files]
    log = record.log(step=-1)
    for epoch in range(config.recipe.epochs + 1):
        at = [point for curve in curves for point in curve if point["epoch"] == epoch]
        if at:
            names = [name for name in at[0] if name != "epoch"]  # no training loss before training
            log.write(epoch, **{name: float(_numbers(at, name).mean()) for name in names})
    log.close()


def _numbers(points: list[dict[str, Json]], name: str) -> np.ndarray:
    """Return one column of points of a curve; NaN where a network diverged, which JSON has not."""
    return np.array([point[name] for point in points], dtype=np.float64)


def _summary(zoo: Zoo) -> dict[str, Json]:
    last = zoo.rows(epoch="last")
    said: dict[str, Json] = {"networks": len(last), "rows": len(zoo), "diverged": len(zoo.diverged)}
    for name in ("train_accuracy", "val_accuracy"):
        if len(last):
            values = zoo.columns[name][last]
            said[name] = {"mean": float(values.mean()), "std": float(values.std())}
    return said
