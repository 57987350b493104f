"""--overwrite: what has the name is moved aside, never removed, so that a run can begin anew."""

import os
from collections.abc import Iterator
from pathlib import Path

from dwf.cluster.ranked import refuse_while_submitted
from dwf.cluster.submit import in_work
from dwf.errors import RunConflict
from dwf.files import read_json
from dwf.metrics import logger
from dwf.run_folder import holder, write_json
from dwf.settings import Launch
from dwf.zoo.facts import FILE
from dwf.zoo.manifest import GROWN, grown_by, read_manifest

_RESTARTS = "SLURM_RESTART_COUNT"


def make_room(launch: Launch, *folders: Path) -> None:
    """Move folders to NAME.old-1 (or -2, ...) if --overwrite asks for it.

    With a zoo go those that widen it, and with a manifest the zoos that it names; what is moved
    names them as they are called then. A job that Slurm has begun again moves nothing: what is
    there is its own.

    Args:
        launch: flags of the command line.
        folders: all that one command is about to write; those that are not there are left out.

    Raises:
        RunConflict: a process or a job works in one.
    """
    if not launch.overwrite or int(os.environ.get(_RESTARTS) or 0):
        return
    there = list(dict.fromkeys(each for folder in folders for each in _with_named(folder)))
    for folder in there:
        _refuse_in_work(folder)
    number = 1
    while any(_aside(folder, number).exists() for folder in there):
        number += 1
    for folder in there:
        aside = _aside(folder, number)
        folder.rename(aside)
        logger.info("%s is moved to %s", folder, aside)
    moved = {folder.name: _aside(folder, number).name for folder in there}
    for folder in there:
        _name_anew(_aside(folder, number), moved)


def _aside(folder: Path, number: int) -> Path:
    return folder.with_name(f"{folder.name}.old-{number}")


def _with_named(folder: Path) -> Iterator[Path]:
    """Yield a folder that is there, and the zoos beside it that its files name."""
    if not folder.exists():
        return
    yield folder
    zoos = read_manifest(folder) or {}
    beside = [folder.with_name(name) for name in zoos.values()]
    # Those of a family that dwf made; a manifest may name any zoos, which are not its own.
    yield from (each for each in beside if each.exists() and _is_part_of(each, folder))
    yield from (each for each in grown_by(folder) if each.exists())


def _is_part_of(zoo: Path, folder: Path) -> bool:
    return zoo.name.startswith(f"{folder.name}-") and (folder / "run").exists()


def _refuse_in_work(folder: Path) -> None:
    for records in (folder, folder / "run"):
        who = holder(records)
        if who:
            raise RunConflict(f"{folder} is being worked on by {who}: --overwrite leaves it alone")
    refuse_while_submitted(folder)
    jobs = in_work(folder)
    if jobs:
        raise RunConflict(
            f"{folder} is in Slurm's jobs {', '.join(sorted({job for job, _ in jobs}))}: end them "
            "with scancel before --overwrite"
        )


def _name_anew(folder: Path, moved: dict[str, str]) -> None:
    """Write the new names of moved zoos where a moved folder names them."""
    for file in (folder / FILE, folder / GROWN):
        told = read_json(file) if file.exists() else {}
        zoos = told.get("zoos")
        if isinstance(zoos, dict):
            told["zoos"] = {label: moved.get(name, name) for label, name in zoos.items()}
        elif isinstance(zoos, list):
            told["zoos"] = [moved.get(name, name) for name in zoos]
        else:
            continue
        write_json(file, told)
