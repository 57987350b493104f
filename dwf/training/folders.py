"""Checkpoints that several ranks write together: a folder each, the newest two kept.

step-00001000/loop.pt       the loop's own state; written last
step-00001000/state/        the engine's files, some of each rank
step-00001000/universal/    the engine's files for any number of ranks
step-00001000/state.signed, universal.signed    that this user wrote them: they are pickles
"""

import contextlib
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dwf import trust
from dwf.errors import CorruptCheckpoint, RunConflict
from dwf.plain import Json, State
from dwf.ranks import World
from dwf.run_folder import load_state, save_state, sha256_of, write_text
from dwf.system_errors import of_system
from dwf.training.checkpoint import NUM_KEPT, refuse_all_damaged, set_aside

LOOP, NATIVE, UNIVERSAL = "loop.pt", "state", "universal"
_SIGNED = ".signed"


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
    """Write the loop's own state, with the size of every file of the engine's."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != _SIGNED]
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in files}
    save_state(folder / LOOP, state | {"files": sizes})


def sign(part: Path, ours: World) -> None:
    """Write that this user wrote the files of a part; ranks call it together."""
    digests = _digests(part, ours)
    ours.on_first(lambda: write_text(_signed(part), trust.signature(digests) + "\n"))


def refuse_forged(part: Path, ours: World) -> None:
    """Raise `ConfigError` unless this user signed the files of a part; ranks call it together."""
    digests = _digests(part, ours)

    def compare() -> None:
        file = _signed(part)
        signed = file.read_text(encoding="utf-8") if file.exists() else None
        trust.refuse_forged(part, digests, signed=signed)

    ours.on_first(compare)


def _signed(part: Path) -> Path:
    return part.with_suffix(_SIGNED)


def _digests(part: Path, ours: World) -> dict[str, str]:
    """Name of each file of a part -> SHA-256 of its bytes; ranks read a share of them each."""
    names = ours.on_first(
        lambda: sorted(str(p.relative_to(part)) for p in part.rglob("*") if p.is_file())
    )
    found = ours.in_order(len(names), lambda i: sha256_of(part / names[i]))
    return dict(zip(names, found, strict=True))


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
        ConfigError: another user wrote it, or it was altered: it is not unpickled.
    """
    paths = ours.on_first(lambda: folders(checkpoints))
    for path in paths:
        damage = _damage(path, ours)
        if damage is None:
            state = ours.on_all(lambda path=path: load_state(path / LOOP))
            part = _part_to_read(path, state, ours.size, needs)
            refuse_forged(path / part, ours)
            return Saved(path, part, state=state)
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
    except FileNotFoundError as error:
        return f"{file} is damaged ({error})"
    except (OSError, zipfile.BadZipFile) as error:
        if told := of_system(error, file):
            raise told from None
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
        f"{state['world']}, or convert it for any number with `dwf convert "
        f"{run}`"
    )
