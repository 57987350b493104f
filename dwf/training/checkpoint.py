"""Checkpoints of a run that learns.

checkpoints/step-00001000.pt    the newest two are kept
"""

import logging
import re
from pathlib import Path
from typing import Any

import torch

from dwf.errors import CorruptCheckpoint
from dwf.run_folder import load_state, save_state

logger = logging.getLogger(__name__)

NUM_KEPT = 2


def step_file(folder: Path, step: int) -> Path:
    """The checkpoint after `step` updates."""
    return folder / f"step-{step:08d}.pt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` updates and remove all but the newest two."""
    save_state(step_file(folder, step), state)
    for old in _newest_first(folder)[NUM_KEPT:]:
        old.unlink()


def load_newest(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
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
            logger.warning("%s; set aside, the checkpoint before it is taken", error)
            path.rename(path.with_name(path.name + ".damaged"))
    if paths:
        raise CorruptCheckpoint(
            f"all {len(paths)} checkpoints in {folder} are damaged and were set aside as "
            "*.damaged: give the command again to train from the first step"
        )
    return None


def _newest_first(folder: Path) -> list[Path]:
    paths = [p for p in folder.glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", p.name)]
    return sorted(paths, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)
