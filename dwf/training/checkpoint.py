"""Saved states: written whole or not at all, held to their checksums when read.

checkpoints/step-00001000.pt    the newest two are kept
"""

import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from dwf.errors import CorruptCheckpoint
from dwf.run_folder import replacing

logger = logging.getLogger(__name__)

NUM_KEPT = 2


def save_state(path: Path, state: Any) -> None:
    """Write tensors, numbers, words and containers of them as one file."""
    with replacing(path) as partial:
        torch.save(state, partial)


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what `save_state` wrote; nothing in the file is executed.

    Args:
        path: the file.
        device: where its tensors go.

    Raises:
        CorruptCheckpoint: the file is truncated or altered.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
            altered = archive.testzip()
        if altered is None:
            return torch.load(path, map_location=device, weights_only=True)
        reason = f"{altered} does not match its checksum"
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # what altered bytes raise depends on where they lie
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise CorruptCheckpoint(f"{path} is damaged ({reason}): remove it and give the command again")


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` updates and remove all but the newest two."""
    save_state(folder / f"step-{step:08d}.pt", state)
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
