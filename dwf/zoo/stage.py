"""The zoo stage: train every shard, then close the zoo.

A shard is the unit of work: `train_shard(folder, index)` is idempotent, needs nothing but the
zoo's folder, and leaves one whole file. Whoever calls `train_zoo` says where units run.
"""

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dwf import __version__
from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError
from dwf.metrics import MetricsLog, logger
from dwf.networks.functional import build_network
from dwf.randomness import threads
from dwf.run_folder import RunFolder, hold, write_json
from dwf.settings import build
from dwf.zoo import plan
from dwf.zoo.config import ZooConfig
from dwf.zoo.layout import Layout
from dwf.zoo.shard import Block, shard_name, write_shard
from dwf.zoo.store import Zoo, create_zoo, finish_zoo, is_whole, read_facts, split_networks

SECONDS_BETWEEN_REPORTS = 1.0


@dataclass(frozen=True)
class Work:
    """Units of work on one folder, for whoever runs them (see `cluster/`).

    Its functions are importable, so that another process or node can call them.
    """

    folder: Path
    count: int
    unit: Callable[[Path, int], None]
    """Does unit `index` of the work in `folder`; idempotent."""
    finished: Callable[[Path], set[int]]
    """Which units are whole; looks at the disk alone."""
    progress: Callable[[Path], tuple[float, str]]
    """Share of the work done, and a fact to show."""
    what: str
    size: int
    """How many of `unit_name` make up the work."""
    unit_name: str
    uses_gpu: bool = False
    """Whether a unit computes on a GPU where it is given one."""


Runner = Callable[[Work], None]
"""Returns when every unit is whole; raises `WorkFailed`, `Preempted` or `StillRunning` else."""


def run_here(work: Work) -> None:
    """Run the units one after the other in this process."""
    with hold(work.folder / "run"):
        for index in sorted(set(range(work.count)) - work.finished(work.folder)):
            work.unit(work.folder, index)


def describe_plan(config: ZooConfig) -> str:
    """Return in words what would be trained: networks, shards, cohorts, bytes."""
    layout = Layout.of(build_network(config.network))
    size = plan.cohort_size(config, layout.size, plan.num_inputs(config))
    rows = config.count * len(config.epochs_kept)
    return (
        f"{config.count} networks of {layout.size:,} weights on {config.data.kind}, "
        f"{config.recipe.epochs} epochs each, {rows} rows kept\n"
        f"{config.num_shards} shards of up to {config.shard} networks, cohorts of up to {size}; "
        f"{rows * layout.size * 4 / 2**20:,.1f} MiB of weights"
    )


def train_zoo(config: ZooConfig, root: Path, name: str, run: Runner = run_here) -> Zoo:
    """Train a zoo into `root/zoos/name`, or go on with one; a shard that is lost is made again.

    Args:
        config: the zoo's settings.
        root: folder that holds `zoos/`.
        name: the zoo's name.
        run: runs the units: `run_here`, or a runner of `dwf.cluster`.

    Raises:
        ConfigError: the networks' inputs or classes are not those of the data.
        RunConflict: the folder holds a zoo of other settings, or another process trains it.
        WorkFailed: shards failed; the others are whole.
        StillRunning: the runner left the work to others; call again to look.
    """
    folder = root / "zoos" / name
    if not (folder / "run").exists():  # before a folder of these settings is there
        _refuse_misfit(config)
    started = time.monotonic()
    with hold(folder / "run"):
        record = RunFolder(folder / "run", config)
        if record.summary is not None and is_whole(folder):
            logger.info("zoo %s is finished already: %s", name, folder)
            return Zoo.open(folder)
        _create(config, folder)
    run(work_of(config, folder))
    with hold(record.path, math.inf):  # of two that watched the same jobs, one after the other
        return _finish(config, record, time.monotonic() - started)


def _finish(config: ZooConfig, record: RunFolder, seconds: float) -> Zoo:
    folder = record.path.parent
    zoo = finish_zoo(folder)
    if record.summary is None:  # else a lost shard was made again, and what was said holds
        _write_curves(config, record)
        record.finish(**_summary(zoo), seconds=round(seconds, 2))
    shutil.rmtree(_work_folder(folder), ignore_errors=True)
    for left in folder.glob("*.partial-*"):  # of attempts that were killed
        left.unlink(missing_ok=True)
    return zoo


def train_shard(folder: Path, index: int) -> None:
    """Train one shard of the zoo in `folder`: the unit of work.

    Resumes what an earlier attempt left; a shard that is whole is left alone.
    """
    from dwf.zoo.cohort import Cohort

    config = _read_config(folder)
    facts = read_facts(folder)
    target = folder / shard_name(index, facts["num_shards"])
    if target.exists():
        return
    with threads(1):  # part of the plan
        data = load_dataset(config.data)
        groups = plan.cohorts_of_shard(config, index, facts["cohort"])
        cohorts = [Cohort(config, group, data, _work_folder(folder)) for group in groups]
        for done, cohort in enumerate(cohorts):
            if not cohort.done_path.exists():
                cohort.train(_reporter(folder, index, done, len(cohorts)))
        _assemble(config, folder, target, groups, cohorts)


def finished_shards(folder: Path) -> set[int]:
    """Return which shards of the zoo in `folder` are whole: those that have their final name."""
    return {int(file.name.split("-")[1]) for file in folder.glob("shard-*-of-*.h5")}


def work_of(config: ZooConfig, folder: Path) -> Work:
    """Return the shards of a zoo as units of work."""
    return Work(
        folder=folder.absolute(),
        count=config.num_shards,
        unit=train_shard,
        finished=finished_shards,
        progress=training_progress,
        what=f"train zoo {folder.name}",
        size=config.count,
        unit_name="networks",
    )


def _create(config: ZooConfig, folder: Path) -> None:
    if (folder / "zoo.json").exists():
        return
    layout = Layout.of(build_network(config.network))
    facts = plan.facts(config)
    facts["cohort"] = plan.cohort_size(config, layout.size, plan.num_inputs(config))
    facts["provenance"] = {"trained_by": f"dwf {__version__}"}
    create_zoo(folder, layout, config.num_shards, **facts)


def _refuse_misfit(config: ZooConfig) -> None:
    data, widths = load_dataset(config.data), config.network.widths
    num_inputs = math.prod(data.shape)
    if widths[0] != num_inputs or widths[-1] < data.num_classes:
        raise ConfigError(
            f"network.widths = {list(widths)}: {config.data.kind} has {num_inputs} inputs and "
            f"{data.num_classes} classes: give {num_inputs} first and {data.num_classes} last"
        )


def _read_config(folder: Path) -> ZooConfig:
    file = folder / "run" / "config.yaml"
    return build(ZooConfig, yaml.safe_load(file.read_text()), str(file))


def _work_folder(folder: Path) -> Path:
    return folder / "run" / "work"


# --- progress ----------------------------------------------------------------------------------


def _reporter(
    folder: Path, shard: int, done: int, total: int
) -> Callable[[float, float | None], None]:
    last = 0.0

    def report(share: float, accuracy: float | None) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            told = {"share": (done + share) / total, "val_accuracy": accuracy}
            write_json(_work_folder(folder) / f"progress-{shard:05d}.json", told)

    return report


def training_progress(folder: Path) -> tuple[float, str]:
    """Return the share of the networks' training that is done, and a validation accuracy."""
    config = _read_config(folder)
    done, accuracies = finished_shards(folder), []
    networks: float = sum(len(plan.networks_of_shard(config, index)) for index in done)
    for file in _work_folder(folder).glob("progress-*.json"):
        index = int(file.stem.split("-")[1])
        with contextlib.suppress(FileNotFoundError):  # another launch has just finished the zoo
            told = json.loads(file.read_text())
            if index not in done:
                networks += told["share"] * len(plan.networks_of_shard(config, index))
                accuracies += [told["val_accuracy"]] * (told["val_accuracy"] is not None)
    share = networks / config.count
    return share, f"val accuracy {100 * np.mean(accuracies):.2f} %" if accuracies else ""


# --- from cohorts to a shard -------------------------------------------------------------------


def _assemble(
    config: ZooConfig, folder: Path, target: Path, groups: list[range], cohorts: list[Any]
) -> None:
    """Stream the cohorts' snapshots into the shard, without the networks that diverged."""
    told = [json.loads(cohort.done_path.read_text()) for cohort in cohorts]
    diverged = [tuple(entry) for one in told for entry in one["diverged"]]
    lost = {network for network, _, _ in diverged}
    num_networks = sum(len(group) for group in groups) - len(lost)
    layout = Layout.from_json(read_facts(folder)["layout"])
    write_shard(
        target,
        layout.digest,
        layout.size,
        num_networks * len(config.epochs_kept),
        _blocks(config, groups, cohorts, lost),
        diverged,
    )


def _blocks(
    config: ZooConfig, groups: list[range], cohorts: list[Any], lost: set[int]
) -> Iterator[Block]:
    """Yield each cohort's rows in (network, epoch) order."""
    splits = split_networks(config.count, config.split.val, config.split.test, config.seed)
    epochs = config.epochs_kept
    for group, cohort in zip(groups, cohorts, strict=True):
        kept = np.array([network for network in group if network not in lost], dtype=np.int64)
        if not len(kept):
            continue
        places = kept - group.start
        snapshots = [np.load(cohort.snapshot_path(epoch)) for epoch in epochs]
        weights_NED = np.stack([snapshot["weights"][places] for snapshot in snapshots], axis=1)
        scores = {
            name: np.stack([snapshot[name][places] for snapshot in snapshots], axis=1).reshape(-1)
            for name in snapshots[0].files
            if name != "weights"
        }
        table = plan.hyper_parameters(config, kept.tolist())
        columns = {
            "network": kept,
            "seed": np.array([plan.network_seed(config, n) for n in kept.tolist()]),
            "split": splits[kept],
            "batchnorm": np.full(len(kept), "none"),
        } | table
        columns = {name: np.repeat(values, len(epochs)) for name, values in columns.items()}
        at = np.tile(np.array(epochs, dtype=np.int32), len(kept))
        columns |= {"epoch": at, "step": at.astype(np.int64) * cohort.steps_per_epoch} | scores
        yield columns, weights_NED.reshape(len(at), -1)


# --- what the run folder says ------------------------------------------------------------------


def _write_curves(config: ZooConfig, record: RunFolder) -> None:
    """Mean validation accuracy and loss of each epoch, over all cohorts."""
    files = sorted(_work_folder(record.path.parent).glob("cohort-???????.json"))
    curves = [json.loads(file.read_text())["curve"] for file in files]
    log = MetricsLog(record.metrics_path, step=-1)
    for epoch in range(config.recipe.epochs + 1):
        at = [point for curve in curves for point in curve if point["epoch"] == epoch]
        if at:
            names = ("val_accuracy", "val_loss")
            log.write(epoch, **{name: float(np.mean([p[name] for p in at])) for name in names})
    log.close()


def _summary(zoo: Zoo) -> dict[str, Any]:
    last = zoo.rows(epoch="last")
    said: dict[str, Any] = {"networks": len(last), "rows": len(zoo), "diverged": len(zoo.diverged)}
    for name in ("train_accuracy", "val_accuracy"):
        if len(last):
            values = zoo.columns[name][last]
            said[name] = {"mean": float(values.mean()), "std": float(values.std())}
    return said
