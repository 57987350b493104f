"""The protocol of all stages: how each begins, goes on and ends, and units of its work.

A stage makes one folder out of its settings and of folders that stages before it made. Its module
offers the same names as its siblings': `plan` says in words what would be made, one call makes it,
`report` says what was made, and `work` names the units of work where there are some.
"""

import glob
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dwf.errors import DwfError, RunConflict
from dwf.metrics import Progress, logger
from dwf.notebooks import in_notebook
from dwf.plain import Json, Settings
from dwf.randomness import threads
from dwf.ranks import World
from dwf.run_folder import LEFTOVERS, MEETING, RunFolder, hold, sweep
from dwf.screen import kept_in
from dwf.trackers import record_in, where_to_look

_SECONDS_BETWEEN_LOOKS = 1.0


def _is_whole(folder: Path) -> bool:
    return True


@dataclass(frozen=True)
class Product:
    """A kind of folder that stages make."""

    noun: str
    """Its name in messages, as `zoo`."""
    records: str = ""
    """Folder in it that holds the run's records; empty: they lie in the folder itself."""
    head: str = ""
    """File of it that no run of another kind leaves: one without records was made elsewhere."""
    is_whole: Callable[[Path], bool] = _is_whole
    """Whether all files of a finished one are still there; one that is lost is made again."""


@contextmanager
def stage(
    product: Product,
    folder: Path,
    *,
    config: Settings | dict[str, Json],
    refuse_other: Callable[[RunFolder], None] = lambda run: None,
    free: Collection[str] = (),
    has_workers: bool = False,
    ours: World | None = None,
) -> Iterator[RunFolder | None]:
    """Be the one process, or the one group of ranks, that makes a folder; once it is whole, none.

    The body makes what is missing and calls `RunFolder.finish` last. Where it is left before that,
    by an error or by a signal, the same command goes on with what it finds.

    The body computes on as many threads as when the run began, whatever is free now: other threads,
    other last bits. Units of work compute on one.

    Args:
        product: what is made.
        folder: where.
        config: the stage's settings, a dataclass or plain data.
        refuse_other: raises `RunConflict` where the run's records name other inputs than now.
        free: settings that may have other values than the run's, see `RunFolder`.
        has_workers: whether processes that do not hold the folder do the work and write in it, so
            that their partial files are no leftovers, which the stage sweeps when all are over.
        ours: the ranks that make it together; default: this process alone.

    Yields:
        The run, on every rank; None where it is finished already, which one log line says.

    Raises:
        RunConflict: the folder is somebody else's, holds a run of other settings or inputs, or
            another process works in it.
    """
    together = ours or World()
    with ExitStack() as held:  # by the first rank
        opened: list[RunFolder] = []

        def begin() -> tuple[bool, int | None]:
            records = folder / product.records
            if product.head and (folder / product.head).exists() and not records.exists():
                raise RunConflict(
                    f"{folder} is another {product.noun}: give another --name, or remove the folder"
                )
            over = RunFolder.finished(records, config, free=free)
            if over is not None:  # it may be another user's: nothing is written, no lock is taken
                refuse_other(over)
                if _is_over(product, folder, over):
                    _tell_where(records)
                    return False, None
            held.enter_context(hold(records))
            run = RunFolder(records, config, free=free)
            refuse_other(run)
            held.enter_context(kept_in(records))
            _tell_where(records)
            if _is_over(product, folder, run):
                return False, None
            record_in(records)
            opened.append(run)
            # Workers write no records: partial ones are of attempts that held the folder.
            sweep(records.glob(LEFTOVERS) if has_workers else folder.rglob(LEFTOVERS))
            sweep(folder.parent.glob(MEETING.format(glob.escape(folder.name), "*")))
            if not has_workers:
                run.keep_threads(together.size)
            return True, run.threads

        is_to_do, count = together.on_first(begin)
        if not is_to_do:
            yield None
            return
        if count is not None:
            held.enter_context(threads(count))
        yield (
            opened[0]
            if opened
            else RunFolder.beside(folder / product.records, config, threads=count)
        )


def _tell_where(records: Path) -> None:
    for line in where_to_look(records):
        logger.info("%s", line)


def _is_over(product: Product, folder: Path, run: RunFolder) -> bool:
    """Whether nothing is left to make, which a log line says."""
    is_over = run.summary is not None and product.is_whole(folder)
    if is_over:
        logger.info("%s %s is finished already: %s", product.noun, folder.name, folder)
    return is_over


# --- units of work ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Units of work on one folder, for whoever runs them (see `dwf.cluster`).

    Its functions are importable, so that another process or node can call them.
    """

    folder: Path
    count: int
    unit: Callable[[Path, int], None]
    """Does unit `index` of the work in `folder`; idempotent."""
    finished: Callable[[Path], set[int]]
    """Which units are whole; looks at the disk alone."""
    progress: Callable[[Path], tuple[float, str]]
    """Share of the work done, and a fact to show."""
    what: str
    size: int
    """How many of `unit_name` make up the work."""
    unit_name: str
    device: str = "cpu"
    """Device of its units: `cpu`, `cuda`, or `auto` where each takes a GPU that it is given."""

    def so_far(self) -> tuple[float, str]:
        """Return how much of `size` is done, and a fact to show; looks at the disk."""
        share, fact = self.progress(self.folder)
        return share * self.size, fact


Runner = Callable[[Work], None]
"""Returns when every unit is whole; raises `WorkFailed`, `Preempted` or `StillRunning` else."""


@contextmanager
def _bar_in_notebook(work: Work) -> Iterator[None]:
    """Show in a notebook how far work is while the block does it; elsewhere show nothing."""
    if not in_notebook():
        yield
        return
    over = threading.Event()
    with Progress(work.what, work.size, unit=work.unit_name, done=work.so_far()[0]) as progress:

        def look() -> None:
            while not over.wait(_SECONDS_BETWEEN_LOOKS):
                with suppress(OSError, DwfError):  # a file that has just been replaced
                    progress.update(work.so_far()[0])

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            progress.update(work.so_far()[0])


def run_here(work: Work) -> None:
    """Run the units one after the other in this process, on one thread as in a worker's."""
    with hold(work.folder / "run"), threads(1), _bar_in_notebook(work):
        for index in sorted(set(range(work.count)) - work.finished(work.folder)):
            work.unit(work.folder, index)
