"""Checkpoints of a run that learns.

checkpoints/step-00001000.pt    the newest two are kept
"""

import logging
import re
import shutil
from pathlib import Path

import torch

from dwf.errors import CorruptCheckpoint
from dwf.plain import State
from dwf.run_folder import load_state, save_state

logger = logging.getLogger(__name__)

NUM_KEPT = 2


def step_file(folder: Path, step: int) -> Path:
    """The checkpoint after `step` updates."""
    return folder / f"step-{step:08d}.pt"


def save_checkpoint(folder: Path, step: int, *, state: dict[str, State]) -> None:
    """Write the state after `step` updates and remove all but the newest two."""
    save_state(step_file(folder, step), state)
    for old in _newest_first(folder)[NUM_KEPT:]:
        old.unlink()


def load_newest(folder: Path, device: torch.device | str = "cpu") -> dict[str, State] | None:
    """Return the newest whole checkpoint; None where there is none.

    A damaged one is set aside as `*.damaged`, with a log line, and the one before is taken.

    Raises:
        CorruptCheckpoint: there are checkpoints and all are damaged.
    """
    paths = _newest_first(folder)
    for path in paths:
        try:
            return load_state(path, device)
        except CorruptCheckpoint as error:
            set_aside(path, str(error))
    refuse_all_damaged(len(paths), folder)
    return None


def set_aside(path: Path, damage: str) -> None:
    """Rename a damaged checkpoint, file or folder, to `*.damaged`, with a log line."""
    logger.warning("%s; set aside, the checkpoint before it is taken", damage)
    aside = path.with_name(path.name + ".damaged")
    if aside.is_dir():  # the same step was damaged before
        shutil.rmtree(aside)
    path.rename(aside)


def refuse_all_damaged(count: int, folder: Path) -> None:
    """Raise `CorruptCheckpoint` if there were checkpoints, all of which were set aside."""
    if count:
        raise CorruptCheckpoint(
            f"all {count} checkpoints in {folder} are damaged and were set aside as "
            "*.damaged: give the command again to train from the first step"
        )


def _newest_first(folder: Path) -> list[Path]:
    paths = [p for p in folder.glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", p.name)]
    return sorted(paths, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)
