"""What a stage asks to be done, as those who run it see it."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Work(Protocol):
    """Units of work on one folder; a stage says what they are (see `zoo.stage.Work`).

    Its functions are importable, so that another process or node can call them.
    """

    folder: Path
    count: int
    unit: Callable[[Path, int], None]
    finished: Callable[[Path], set[int]]
    progress: Callable[[Path], tuple[float, str]]
    what: str
    size: int
    unit_name: str
