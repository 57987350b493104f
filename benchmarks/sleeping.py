"""A unit of work that only sleeps, for timing what is not work."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

SECONDS = float(os.environ.get("DWF_SLEEP", "10"))


def unit(folder: Path, index: int) -> None:
    """Sleep, and write down when it began and ended."""
    began = time.time()
    time.sleep(SECONDS)
    partial = folder / f"partial-{index}"
    partial.write_text(f"{began} {time.time()}", encoding="utf-8")
    partial.rename(folder / f"unit-{index:05d}")


def finished(folder: Path) -> set[int]:
    """Return the units that were slept."""
    return {int(file.name.split("-")[1]) for file in folder.glob("unit-*")}


def progress(folder: Path) -> tuple[float, str]:
    """Return the share of units that were slept."""
    return len(finished(folder)) / max(int((folder / "count").read_text(encoding="utf-8")), 1), ""


@dataclass(frozen=True)
class Sleep:
    """`Work` of `count` such units."""

    folder: Path
    count: int
    unit = staticmethod(unit)
    finished = staticmethod(finished)
    progress = staticmethod(progress)
    what: str = "sleep"
    unit_name: str = "units"
    uses_gpu: bool = False

    @property
    def size(self) -> int:
        """One of `unit_name` is a unit."""
        return self.count
