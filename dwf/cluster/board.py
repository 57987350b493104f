"""One live table of work on a cluster; a log line a minute where there is no terminal."""

import sys
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

from dwf.cluster.work import Work
from dwf.metrics import Progress

_COLUMNS = ("done", "running", "queued", "failed")


class Board:
    """Shows how many units are done, running, queued and failed, the rate and the time left."""

    def __init__(self, work: Work):
        self.work = work
        share, _ = work.progress(work.folder)
        self._line = Progress(work.what, work.size, work.unit_name, share * work.size, bar=False)
        self._live = _live() if sys.stderr.isatty() else None
        self._began_with, self._began = share, time.monotonic()

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        else:
            self._line.__exit__()

    def show(self, todo: int, counts: Counter, waiting: Collection[str]) -> None:
        """Show the counts of units now; `waiting` says why jobs wait."""
        share, fact = self.work.progress(self.work.folder)
        counts["done"] = self.work.count - todo
        if self._live:
            self._live.update(self._table(counts, share, fact, waiting))
            return
        said = ", ".join(f"{counts[name]} {name}" for name in _COLUMNS)
        reasons = {"waiting for": ", ".join(sorted(waiting))} if waiting else {}
        facts = {"": fact} if fact else {}
        self._line.update(share * self.work.size, shards=said, **reasons, **facts)

    def _table(self, counts: Counter, share: float, fact: str, waiting: Collection[str]) -> Any:
        from rich.table import Table

        rate = (share - self._began_with) * self.work.size / (time.monotonic() - self._began)
        left = f"{(1 - share) * self.work.size / rate:.0f} s" if rate > 0 else "-"
        name = self.work.unit_name
        table = Table(title=self.work.what, caption=", ".join([fact, *sorted(waiting)]))
        for column in (*_COLUMNS, name, f"{name}/s", "time left"):
            table.add_column(column, justify="right")
        done = f"{share * self.work.size:.0f} of {self.work.size}"
        table.add_row(*(str(counts[name]) for name in _COLUMNS), done, f"{rate:.3g}", left)
        return table


def _live() -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), refresh_per_second=1)
