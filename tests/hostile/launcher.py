"""Launcher of two workers, which a test kills. It imports no torch, which each process would do."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from dwf import preemption
from dwf.cluster import local
from dwf.stages import Work

_SECONDS_OF_A_HANG = 240


def unit(folder: Path, index: int) -> None:
    """Unit 0 ends, so that its worker waits for more; unit 1 works until it is asked to save."""
    (folder / f"began-{index}").write_text(str(os.getpid()))
    if index == 0:
        wait_for((folder / "began-1").exists)  # in another worker
        return
    wait_for(preemption.is_asked)
    (folder / "saved").touch()
    preemption.stop()


def launch(folder: Path) -> None:
    """Run both units in two workers."""
    local.run_units(
        Work(
            folder,
            2,
            unit=unit,
            finished=lambda folder: set(),
            progress=lambda folder: (0.0, ""),
            what="x",
            size=2,
            unit_name="units",
        ),
        [0, 1],
        workers=2,
    )


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS_OF_A_HANG
    while not happened():
        assert time.monotonic() < end, "it never happens"
        time.sleep(0.01)
