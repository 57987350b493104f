"""Progress of a unit of training, told by a file."""

import time
from collections.abc import Callable
from pathlib import Path

from dwf.run_folder import write_json

SECONDS_BETWEEN_REPORTS = 1.0


def reporter(file: Path, done: int, *, total: int) -> Callable[[float, float | None], None]:
    """Return what a cohort tells its progress: it writes a file, at most once a second.

    Args:
        file: holds `share`, of all cohorts of the unit, and `val_accuracy`.
        done: cohorts of the unit that are trained.
        total: cohorts of the unit.
    """
    last = 0.0

    def report(share: float, accuracy: float | None) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            write_json(file, {"share": (done + share) / total, "val_accuracy": accuracy})

    return report
