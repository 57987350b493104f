"""One live table of work on a cluster; a log line a minute where there is no terminal."""

import math
import sys
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from dwf.cluster.work import progress_of
from dwf.metrics import cell_of, duration, plainly
from dwf.stages import Work

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_COLUMNS = ("done", "running", "queued", "failed")


class Board:
    """Shows how many units are done, running, queued and failed, the rate and the time left."""

    def __init__(self, work: Work):
        self.work, self.progress = work, progress_of(work, bar=False)
        self._live = _live() if sys.stderr.isatty() else None

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        else:
            self.progress.__exit__()

    def show(self, todo: int, counts: Counter, *, waiting: Collection[str]) -> None:
        """Show the counts of units now; `waiting` says why jobs wait."""
        counts["done"] = self.work.count - todo
        done, fact = self.work.so_far()
        if counts["queued"] and not counts["running"]:
            self.progress.wait(done)  # hours in the queue say nothing of the time left
        if self._live:
            self.progress.done = done
            self._live.update(self._table(counts, waiting, fact=fact))
            return
        said = ", ".join(f"{counts[name]} {name}" for name in _COLUMNS)
        facts = {"waiting for": ", ".join(sorted(waiting))} if waiting else {}
        facts |= {"": fact} if fact else {}
        self.progress.update(done, shards=said, **facts)

    def _table(self, counts: Counter, waiting: Collection[str], *, fact: str) -> "Table":
        from rich.table import Table

        progress, name = self.progress, self.work.unit_name
        table = Table(
            title=cell_of(self.work.what), caption=cell_of(", ".join([fact, *sorted(waiting)]))
        )
        for column in (*_COLUMNS, name, f"{name}/s", "time left"):
            table.add_column(column, justify="right")
        done = f"{progress.done:.0f} of {self.work.size}"
        left = "-" if math.isinf(progress.seconds_left) else duration(progress.seconds_left)
        table.add_row(
            *(str(counts[name]) for name in _COLUMNS), done, plainly(progress.rate, 3), left
        )
        return table


def _live() -> "Live":
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), refresh_per_second=1)
