"""Time that the rest of a pipeline may take: as its stages took before, else by arithmetic."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dwf.errors import DwfError
from dwf.files import read_json
from dwf.folders.forecast import seconds_of
from dwf.metrics import Whole
from dwf.pipeline import Command
from dwf.run_folder import write_json

FILE = "seconds.json"
"""File of a pipeline's folder: a stage and its settings file -> the most seconds that it took."""


class TimeLeft:
    """Which stage of a pipeline is at work, and what those after it may take.

    Args:
        folder: the pipeline's; those beside it tell what stages of the same settings files took.
        given: its commands, in order.
        elsewhere: whether stages of units run on a cluster, so that arithmetic tells nothing.
    """

    def __init__(self, folder: Path, given: Sequence[Command], *, elsewhere: bool):
        self._folder, self._given = folder, given
        self._own = _read(folder)
        self._known = dict(_by_arithmetic(given)) if not elsewhere else {}
        for other in sorted(folder.parent.glob(f"*/{FILE}")):
            self._known |= _read(other.parent)
        self._known |= self._own

    def at(self, number: int) -> Whole:
        """Return what progress within a stage says of the whole; the first stage is number 0."""
        return self._whole(number, self._given[number + 1 :])

    def line(self, number: int) -> str:
        """Return what is said of a stage that begins, in words."""
        return self._whole(number, self._given[number:]).words(0.0)

    def _whole(self, number: int, rest: Sequence[Command]) -> Whole:
        known = [(command.stage, self._known.get(_key(command))) for command in rest]
        return Whole(
            f"stage {number + 1} of {len(self._given)}",
            sum(seconds or 0.0 for _, seconds in known),
            without=tuple(dict.fromkeys(stage for stage, seconds in known if seconds is None)),
        )

    def took(self, number: int, seconds: float) -> None:
        """Record what a stage took; one that was finished already took less than before."""
        key = _key(self._given[number])
        self._own[key] = round(max(seconds, self._own.get(key, 0.0)), 1)
        self._known[key] = self._own[key]
        with contextlib.suppress(OSError):  # a folder of another user's keeps its times
            write_json(self._folder / FILE, self._own)


def _key(command: Command) -> str:
    return f"{command.stage} {command.file}"


def _read(folder: Path) -> dict[str, float]:
    try:
        told = read_json(folder / FILE)
        return {str(key): float(seconds) for key, seconds in told.items()}
    except (OSError, DwfError, ValueError, TypeError):
        return {}


def _by_arithmetic(given: Sequence[Command]) -> Iterator[tuple[str, float]]:
    """Yield the stages whose time follows from their settings, of a zoo on all cores."""
    for command, seconds in zip(given, seconds_of(given), strict=True):
        if seconds is not None:
            cores = (os.cpu_count() or 1) if command.stage == "zoo" else 1
            yield _key(command), seconds / cores
