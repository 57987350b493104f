"""Checkpoints that several ranks write together: a folder each, the newest two kept.

step-00001000/loop.pt       the loop's own state; written last
step-00001000/state/        the engine's files, some of each rank
step-00001000/universal/    the engine's files for any number of ranks
"""

import contextlib
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dwf.errors import CorruptCheckpoint, RunConflict
from dwf.plain import Json, State
from dwf.ranks import World
from dwf.run_folder import load_state, save_state
from dwf.training.checkpoint import NUM_KEPT, refuse_all_damaged, set_aside

LOOP, NATIVE, UNIVERSAL = "loop.pt", "state", "universal"


@dataclass
class Saved:
    """A whole checkpoint that was found."""

    path: Path
    part: str
    """Which of its folders to read: `state` or `universal`."""
    state: dict[str, State]
    """The loop's own."""


def folders(checkpoints: Path) -> list[Path]:
    """Return the whole checkpoints, newest first."""
    paths = [p for p in checkpoints.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(paths, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


@contextlib.contextmanager
def replacing_folder(checkpoints: Path, step: int, *, ours: World) -> Iterator[Path]:
    """Yield a temporary folder that all ranks write into; then give it its name.

    Ranks call it together. Older checkpoints than the newest two are removed.
    """
    final = checkpoints / f"step-{step:08d}"
    partial = checkpoints / f"{final.name}.partial"

    def begin() -> None:
        for left in checkpoints.glob("step-*.partial"):  # of an attempt that was killed
            shutil.rmtree(left)
        partial.mkdir(parents=True)

    def end() -> None:
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        for old in folders(checkpoints)[NUM_KEPT:]:
            shutil.rmtree(old)

    ours.on_first(begin)
    yield partial
    ours.barrier()
    ours.on_first(end)


def write_loop(folder: Path, state: dict[str, State]) -> None:
    """Write the loop's own state, with the size of every other file."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in files}
    save_state(folder / LOOP, state | {"files": sizes})


def newest_folder(checkpoints: Path, ours: World, *, needs: dict[str, Json]) -> Saved | None:
    """Return the newest whole checkpoint, None without one; ranks call it together.

    A damaged one is set aside as `*.damaged`, with a log line, and the one before is taken.

    Args:
        checkpoints: the folder of all.
        ours: the ranks.
        needs: what a checkpoint must agree on with the engine's settings.

    Raises:
        CorruptCheckpoint: there are checkpoints and all are damaged.
        RunConflict: it was written by another number of ranks and is not converted, or with other
            settings of the engine.
    """
    paths = ours.on_first(lambda: folders(checkpoints))
    for path in paths:
        damage = _damage(path, ours)
        if damage is None:
            state = ours.on_all(lambda path=path: load_state(path / LOOP))
            return Saved(path, _part_to_read(path, state, ours.size, needs), state=state)
        ours.on_first(lambda path=path, damage=damage: set_aside(path, damage))
    refuse_all_damaged(len(paths), checkpoints)
    return None


def _damage(path: Path, ours: World) -> str | None:
    """Return what is wrong with a checkpoint; ranks look at a share of its files each."""
    try:
        sizes = ours.on_first(lambda: load_state(path / LOOP)["files"])
    except (CorruptCheckpoint, FileNotFoundError) as error:
        return str(error)
    files = list(sizes.items())
    found = list(ours.in_order(len(files), lambda i: _damage_of(path / files[i][0], files[i][1])))
    return next((damage for damage in found if damage), None)


def _damage_of(file: Path, size: int) -> str | None:
    try:
        found = file.stat().st_size
        if found != size:
            return f"{file} is damaged ({found} bytes of {size})"
        if file.suffix != ".pt":
            return None
        with zipfile.ZipFile(file) as archive:
            altered = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return f"{file} is damaged ({error})"
    return f"{file} is damaged ({altered} does not match its checksum)" if altered else None


def _part_to_read(path: Path, state: dict[str, Json], world: int, needs: dict[str, Json]) -> str:
    for name, value in needs.items():
        if state[name] != value:
            raise RunConflict(
                f"{path} was written with {name} = {state[name]!r}, and the DeepSpeed file says "
                f"{value!r}: put that back, or train under another --name"
            )
    if state["world"] == world:
        return NATIVE
    if (path / UNIVERSAL).is_dir():
        return UNIVERSAL
    run = path.parent.parent
    raise RunConflict(
        f"{path} was written by {state['world']} ranks, and there are {world}: start "
        f"{state['world']}, or convert it for any number with `python -m dwf.training convert "
        f"{run}`"
    )
