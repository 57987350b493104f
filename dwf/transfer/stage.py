"""The fine-tuning stage: decide where networks begin, train every unit, write the report.

    finetunes/NAME/starts.json   which networks each arm begins from, and how they are computed
    finetunes/NAME/report.*      see report.py;  curves.png
    finetunes/NAME/run/          records, and units while they are in work

A unit is some networks of one arm: `finetune_unit(folder, index)` is idempotent. Whoever calls
`finetune` says where units run.
"""

import contextlib
import dataclasses
import math
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np

from dwf.datasets.known import is_here, why_not_here
from dwf.datasets.own import identified
from dwf.errors import RunConflict
from dwf.evaluation.report import INDEX, Record, renew_index, save_timing
from dwf.files import read_json
from dwf.flags import making_again, name_and_root
from dwf.metrics import print_report
from dwf.names import folder_in
from dwf.run_folder import LEFTOVERS, RunFolder, hold, replacing, sweep, write_json, write_text
from dwf.settings import to_dict
from dwf.stages import Product, Runner, Work, run_here, stage
from dwf.transfer.arms import Pool, arms_of, open_pool
from dwf.transfer.config import FinetuneConfig
from dwf.transfer.page import draw_curves, page
from dwf.transfer.report import FILE as REPORT
from dwf.transfer.report import TransferReport
from dwf.transfer.results import assemble
from dwf.transfer.starts import FILE as STARTS
from dwf.transfer.starts import Starts, noise_unit, units_of
from dwf.transfer.target import find_target
from dwf.transfer.unit import (
    NOISE_UNIT,
    Job,
    finetune_unit,
    finished_units,
    work_folder,
)
from dwf.zoo.cohorts import choose_method, measure_rate
from dwf.zoo.facts import FILE as ZOO_FILE
from dwf.zoo.facts import Facts
from dwf.zoo.misfit import refuse_misfit
from dwf.zoo.store import Zoo

_TABLE_WIDTH = 156


def _is_whole(folder: Path) -> bool:
    return (folder / REPORT).exists()


FINETUNE = Product("fine-tuning", records="run", head=STARTS, is_whole=_is_whole)


def plan(config: FinetuneConfig, root: Path, *, name: str) -> str:
    """Return in words what `finetune` would train."""
    shots = config.images_per_class
    images = f"{shots} images of each class" if shots else "all training images"
    return (
        f"fine-tune networks of {config.zoo} on {config.data.title} ({images}), "
        f"{config.recipe.epochs} epochs, up to {config.count} networks an arm -> "
        f"{_folder(root, name)}\narms: {', '.join(config.arms)}"
    )


def describe_cost(config: FinetuneConfig, root: Path) -> str:
    """Return in words how many networks are trained, and how long that takes on this machine."""
    zoos = (root / "zoos" / one / ZOO_FILE for one in (config.zoo, *config.samples))
    if not all(file.exists() for file in zoos):
        return "no estimate of the time before the zoos are there"
    arms = arms_of(open_pool(config, root))
    total = sum(arm.count for arm in arms)
    each = ", ".join(f"{arm.title} ({arm.count})" for arm in arms)
    said = f"{total} networks x {config.recipe.epochs} epochs: {each}"
    if not is_here(config.data):
        return f"{said}\nno estimate of the time: {why_not_here(config.data)}"
    target = find_target(config, Facts.read(root / "zoos" / config.zoo))
    refuse_misfit(target.config, target.data)
    rate = measure_rate(target.config, target.data)
    minutes = rate.seconds * total * config.recipe.epochs / 60
    return (
        f"{said}\nabout {minutes:,.1f} minutes of one worker (a core), at {rate.seconds:.3g} s an "
        f"epoch of a network as measured on one core here just now, with {rate.memory_mib:,.0f} "
        "MiB of memory; scores and looks come on top"
    )


def finetune(
    config: FinetuneConfig, root: Path | str, *, name: str, run: Runner = run_here
) -> TransferReport:
    """Train all arms on the new task and write the report, or go on with one.

    Args:
        config: which networks, which task.
        root: folder that holds zoos/ and finetunes/.
        name: the fine-tuning's name; it is written to root/finetunes/NAME.
        run: runs the units: `run_here`, or a runner of `dwf.cluster`.

    Raises:
        ConfigError: data, head, recipe or frozen layers do not fit the networks, or samples are
            of another zoo.
        ShapeMismatch: samples of another layout than the zoo's.
        RunConflict: the folder holds another fine-tuning, or zoos have changed since; or another
            process is at it.
        WorkFailed: units failed; the others are whole.
    """
    root = Path(root)
    config = dataclasses.replace(config, data=identified(config.data))
    folder, began = _folder(root, name), time.monotonic()
    starts = Starts.read(folder) if (folder / STARTS).exists() else _decide(config, root)
    refuse = partial(_refuse_other_networks, config=config, root=root, starts=starts)
    with stage(FINETUNE, folder, config=config, refuse_other=refuse, has_workers=True) as record:
        if record is None:
            return TransferReport.load(folder)
        _create(config, root, folder, starts)
    run(work(root, name=name))
    with hold(record.path, math.inf):  # of two that watched the same jobs, one after the other
        return _finish(record, time.monotonic() - began)


def work(root: Path, *, name: str) -> Work:
    """Return the units of a fine-tuning that has been begun."""
    folder = _folder(root, name).absolute()
    starts = Starts.read(folder)
    return Work(
        folder=folder,
        count=len(starts.units),
        unit=finetune_unit,
        finished=finished_units,
        progress=progress,
        what=f"fine-tune {name}",
        size=starts.num_networks,
        unit_name="networks",
        device=starts.method.device,
    )


def progress(folder: Path) -> tuple[float, str]:
    """Return the share of the networks' training that is done, and a validation accuracy."""
    starts, whole, done, accuracies = Starts.read(folder), finished_units(folder), 0.0, []
    for index, unit in enumerate(starts.units):
        if index in whole:
            done += len(unit.networks)
            continue
        with contextlib.suppress(FileNotFoundError):  # not begun, or another launch has just ended
            told = read_json(
                work_folder(folder) / f"progress-{index:05d}.json", keys=("share", "val_accuracy")
            )
            done += len(unit.networks) * told["share"]
            accuracies += [told["val_accuracy"]] * (told["val_accuracy"] is not None)
    said = f"val accuracy {100 * np.mean(accuracies):.2f} %" if accuracies else ""
    return done / starts.num_networks, said


def report(made: TransferReport, folder: Path) -> None:
    """Print what `finetune` found, and where its page lies."""
    print_report(
        f"fine-tuning {made.name}",
        made.columns,
        rows=made.table,
        bold=[arm.family == "generated" for arm in made.arms],
        paragraphs=(*made.notes, *made.headline),
        width=_TABLE_WIDTH,
    )
    print(f"report: {folder / 'report.html'}")


def _folder(root: Path, name: str) -> Path:
    return folder_in(Path(root) / "finetunes", name)


def _decide(config: FinetuneConfig, root: Path) -> Starts:
    """Decide where networks begin and how they are computed; refuse what does not fit."""
    pool = open_pool(config, root)
    arms, target = arms_of(pool), find_target(config, pool.zoo.facts)
    refuse_misfit(target.config, target.data)
    method = choose_method(target.config, target.data).method
    return Starts(method, _fingerprints(pool), arms, units_of(target.config, arms))


def _fingerprints(pool: Pool) -> dict[str, str]:
    zoos = [pool.zoo, *pool.samples, *([pool.unaligned] if pool.unaligned else [])]
    return {zoo.name: zoo.fingerprint for zoo in zoos}


def _refuse_other_networks(
    run: RunFolder, *, config: FinetuneConfig, root: Path, starts: Starts
) -> None:
    """Refuse to go on, or to report, where networks are not those that it began from."""
    if _fingerprints(open_pool(config, root)) != starts.fingerprints:
        raise RunConflict(
            f"{run.path.parent} began from networks that are no longer those of "
            f"{', '.join(starts.fingerprints)}: give another --name, or remove the folder"
        )


def _create(config: FinetuneConfig, root: Path, folder: Path, starts: Starts) -> None:
    """Write what units need to begin, `starts.json` last."""
    if (folder / STARTS).exists():
        return
    if any(arm.noise for arm in starts.arms):
        unit_D = noise_unit(Zoo.open(root / "zoos" / config.zoo))
        file = work_folder(folder) / NOISE_UNIT
        with replacing(file) as partial_file, open(partial_file, "wb") as opened:
            np.save(opened, unit_D)
    write_json(folder / STARTS, to_dict(starts))


def _finish(record: RunFolder, seconds: float) -> TransferReport:
    folder = record.path.parent
    if record.summary is not None and (folder / REPORT).exists():  # another launch was first
        return TransferReport.load(folder)
    job = Job.read(folder)
    made = assemble(job)
    figures = draw_curves(made, folder)
    save_timing(record.path, seconds)
    _, root = name_and_root(folder, "finetunes")
    run = Record.read(
        record.path,
        commands=[making_again("finetune", folder, parent="finetunes", records=record.path.name)],
        page=folder,
        links=[("all reports", root / INDEX)],
    )
    write_text(folder / "report.html", page(made, run, figures=figures))
    made.save(folder)
    record.finish(headline=list(made.headline), seconds=round(seconds, 2))
    shutil.rmtree(work_folder(folder), ignore_errors=True)
    sweep(folder.rglob(LEFTOVERS))
    renew_index(root)
    return made
