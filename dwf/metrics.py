"""Reports of a run while it works: numbers to a file, progress to a person.

On a terminal and in a notebook progress is a bar; elsewhere it is one log line a minute.
"""

import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dwf.files import open_own, parse_json, read_text, told_by
from dwf.notebooks import NotebookBar, in_notebook
from dwf.plain import Json, finite, visible
from dwf.screen import VisibleFormatter, note

if TYPE_CHECKING:
    import rich.progress
    from rich.console import Console
    from rich.text import Text

    from dwf.trackers import Tracker

logger = logging.getLogger("dwf")

SECONDS_BETWEEN_LINES = 60.0


def log_to_stderr() -> None:
    """Show dwf's log lines; called by the commands."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler])
    logger.setLevel(logging.INFO)


class MetricsLog:
    """Numbers of a run, one JSON object a line, in order of `step`.

    Args:
        path: the file; appended to.
        step: the step a resumed run goes on from: lines of later steps are dropped, so that an
            interrupted run's file equals an uninterrupted one's.
        trackers: what shows the same numbers; closed with it.
    """

    def __init__(self, path: Path, step: int = 0, *, trackers: "Sequence[Tracker]" = ()):
        self.path, self._trackers = path, trackers
        if path.exists():
            lines = read_text(path).splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("}\n")]
            with told_by(path):
                kept = [line for line in kept if parse_json(line, path)["step"] <= step]
            if kept != lines:  # never without the lines that stay
                partial = path.with_name(f"{path.name}.partial")
                partial.write_text("".join(kept), encoding="utf-8")
                os.replace(partial, path)
        self._file = open_own(path, "a")  # held for the run's life

    def write(self, step: int, **values: float | int | str) -> None:
        """Add one line; units belong in the names (`seconds`, `networks/s`)."""
        self._file.write(json.dumps(finite({"step": step, **values}), allow_nan=False) + "\n")
        self._file.flush()
        shown = {name: value for name, value in values.items() if not isinstance(value, str)}
        for tracker in self._trackers:
            tracker.log(step, shown)

    def close(self) -> None:
        """Close the file, and the trackers."""
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def read_metrics(path: Path) -> list[dict[str, Json]]:
    """Return the whole lines of a metrics file; one that is being written, or was cut, is none."""
    lines = read_text(path).splitlines(keepends=True)
    return [parse_json(line, path) for line in lines if line.endswith("}\n")]


@dataclass(frozen=True)
class Whole:
    """Longer work that a part's progress belongs to, as a pipeline that of its stages."""

    part: str
    """The part, as `stage 2 of 5`."""
    seconds_after: float
    """Seconds that the parts after it may take."""
    without: tuple[str, ...] = ()
    """Parts after it whose time is not known and not counted."""

    def words(self, seconds_left: float) -> str:
        """Say which part it is, and what is left of the whole when so much is left of the part."""
        if math.isinf(seconds_left):
            return self.part
        but = f" without {', '.join(self.without)}" if self.without else ""
        return f"{self.part}, about {duration(seconds_left + self.seconds_after)} left in all{but}"


_whole: list[Whole] = []


@contextlib.contextmanager
def part_of(whole: Whole) -> Iterator[None]:
    """Within the block progress says which part of longer work it is."""
    _whole.append(whole)
    try:
        yield
    finally:
        _whole.remove(whole)


def duration(seconds: float) -> str:
    """Return a time in words, in the two largest units that it has: `3 h 20 min`."""
    if math.isinf(seconds):
        return "?"
    total = round(seconds)
    for size, unit, below, smaller in _UNITS:
        if total >= 2 * size:
            rest = total % size // below
            return f"{total // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{total} s"


_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def plainly(number: float, digits: int) -> str:
    """A number to so many digits, never with an exponent above 1: 0.25, 12.5, 12531."""
    return f"{number:.{digits}g}" if number < 10**digits - 0.5 else f"{number:.0f}"


class Progress:
    """How far long work is: a bar with rate and time left, or a log line a minute.

    The run's `log.txt` has the lines in any case.

    Args:
        what: what is done, for a person: "train zoo mnist_mlp".
        total: units of work in all.
        unit: the unit's plural: "networks", "steps".
        done: units done before this process began; not counted in the rate.
        bar: whether to draw a bar on a terminal or in a notebook.
    """

    def __init__(self, what: str, total: int, *, unit: str, done: float = 0, bar: bool = True):
        self.what, self.total, self.unit = what, total, unit
        self._begun_with = self.done = done
        self._started = self._last_line = time.monotonic()
        self._facts = ""
        self._bar = _shown(what, total, done) if bar else None

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
            note(self.line())
        else:
            logger.info("%s", self.line())

    def update(self, done: float, **facts: str) -> None:
        """Say how many units are done, with facts to show (`accuracy="96.1 %"`)."""
        self.done = done
        self._facts = shown = "  ".join(f"{name} {value}" for name, value in facts.items())
        if self._bar:
            self._bar.update(0, completed=done, told=self._told(), facts=shown)
        if time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            tell = note if self._bar else logger.info
            tell(f"{self.line()}  {shown}".rstrip())

    def stop_here(self) -> None:
        """Say that all is done: work that may need less than its total has come to its end."""
        self.total = round(self.done)
        if self._bar:
            shown = {"told": self._told(), "facts": self._facts}
            self._bar.update(0, total=self.total, completed=self.done, **shown)

    def wait(self, done: float) -> None:
        """Say that nobody works on it now: the rate is counted from here."""
        self._begun_with, self._started = done, time.monotonic()

    def line(self) -> str:
        """The state in words."""
        return f"{self.what}: {self._told()}"

    def _told(self) -> str:
        """How many of how many, the rate and the time left once it is known, that of the whole."""
        is_over = self.done >= self.total
        done = f"{self.total}" if is_over else plainly(self.done, 4)
        told = f"{done} of {self.total} {self.unit}"
        if self.rate:
            tail = f"{self._seconds():.1f} s" if is_over else f"{duration(self.seconds_left)} left"
            told += f", {plainly(self.rate, 3)} {self.unit}/s, {tail}"
        return "; ".join([told, *(whole.words(self.seconds_left) for whole in _whole[-1:])])

    @property
    def rate(self) -> float:
        """Units a second, since this process began or last waited."""
        return max(0.0, self.done - self._begun_with) / max(self._seconds(), 1e-9)

    @property
    def seconds_left(self) -> float:
        """Until all units are done at this rate; infinite while it is 0."""
        return (self.total - self.done) / self.rate if self.rate else float("inf")

    def _seconds(self) -> float:
        return time.monotonic() - self._started


def _shown(what: str, total: int, done: float) -> "rich.progress.Progress | NotebookBar | None":
    """Return a bar where there is a person to see it: on a terminal or in a notebook."""
    if in_notebook():
        return NotebookBar(what, total, done=done)
    return _bar(what, total, done) if sys.stderr.isatty() else None


def table_console(width: int) -> "Console":
    """Return rich's console for a table: as wide as the terminal, or as the table needs."""
    from rich.console import Console

    console = Console()
    return console if console.width >= width else Console(width=width)


def cell_of(words: str) -> "Text":
    """Return words for rich to show as they stand: no markup, links or control characters."""
    from rich.text import Text

    return Text(visible(words))


def print_report(
    title: str,
    columns: Sequence[str],
    *,
    rows: Sequence[Sequence[str]],
    bold: Sequence[bool],
    paragraphs: Sequence[str],
    width: int,
) -> None:
    """Print a table and what it says in words.

    Args:
        title: of the table.
        columns: its heading; all but the first are numbers.
        rows: its cells.
        bold: whether each row stands out.
        paragraphs: what follows it.
        width: characters that the table needs.
    """
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=cell_of(title), box=SIMPLE, padding=(0, 1))
    for number, column in enumerate(columns):
        table.add_column(cell_of(column), justify="right" if number else "left")
    for row, stands_out in zip(rows, bold, strict=True):
        table.add_row(*map(cell_of, row), style="bold" if stands_out else None)
    console = table_console(width)
    console.print(table)
    for paragraph in paragraphs:
        console.print(cell_of(paragraph))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on a terminal, aligned text elsewhere.

    Args:
        head: its heading; of empty words: it has none.
        rows: its cells, as many in each row as in the heading.
    """
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(show_header=any(head))
        for word in head:
            table.add_column(cell_of(word), overflow="fold")
        for row in rows:
            table.add_row(*map(cell_of, row))
        Console().print(table)
        return
    lines = [head, *rows] if any(head) else rows
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print("  ".join(f"{word:<{w}}" for word, w in zip(line, widths, strict=True)).rstrip())


def _bar(what: str, total: int, done: float) -> "rich.progress.Progress":
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[told]}", markup=False),
        progress.TextColumn("{task.fields[facts]}", markup=False),
        console=Console(stderr=True),
    )
    bar.add_task(visible(what), total=total, completed=done, told="", facts="")
    return bar
