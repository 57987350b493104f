"""Run units of work in worker processes on this machine, one thread each.

More workers rather than more threads: a unit's result then does not depend on how many there are.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from dwf import preemption
from dwf.cluster.work import Work
from dwf.errors import DwfError, Preempted, WorkFailed
from dwf.metrics import Progress
from dwf.run_folder import hold

SECONDS_BETWEEN_LOOKS = 0.5

# Batched steps free and take the same tens of megabytes again and again; returning them to the
# kernel each time costs a page fault per 4 KiB (measured: a step takes 1.3 times as long).
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}


def runner(workers: int | None = None) -> Any:
    """Return what runs `Work` here: `workers` processes, one per core by default."""
    return partial(run, workers=workers or len(os.sched_getaffinity(0)))


def run(work: Work, workers: int) -> None:
    """Run the units that are not done; every unit is tried though others fail.

    Raises:
        WorkFailed: units failed; names each with its reason.
        Preempted: a signal asked to stop; the workers saved what they had.
    """
    with hold(work.folder / "run"):
        todo = sorted(set(range(work.count)) - work.finished(work.folder))
        if todo:
            _run(work, todo, workers)


def _run(work: Work, todo: list[int], workers: int) -> None:
    os.environ.update(KEEP_FREED_MEMORY | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    # Spawned, not forked: HDF5 and torch hold threads and locks that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    share, fact = work.progress(work.folder)
    with (
        ProcessPoolExecutor(min(workers, len(todo)), context, _begin, (os.getpid(),)) as pool,
        Progress(work.what, work.size, work.unit_name, done=share * work.size) as bar,
    ):
        futures = {pool.submit(work.unit, work.folder, index): index for index in todo}
        waiting: set[Future] = set(futures)
        while waiting:
            _, waiting = wait(waiting, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
            share, fact = work.progress(work.folder)
            bar.update(share * work.size, **({"": fact} if fact else {}))
            if preemption.is_asked():
                _stop_workers(pool)
        failed = {index: future.exception() for future, index in futures.items()}
    _raise_failures(work, {index: error for index, error in failed.items() if error})


def _begin(parent: int) -> None:
    """First call in a worker: watch for signals, and do not outlive the parent."""
    preemption.watch()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _stop_workers(pool: ProcessPoolExecutor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in multiprocessing.active_children():
        worker.terminate()  # SIGTERM: the step boundary saves, then the unit ends
    pool.shutdown(wait=True)
    preemption.stop()


def _raise_failures(work: Work, failed: dict[int, BaseException]) -> None:
    if not failed:
        return
    if all(isinstance(error, Preempted) for error in failed.values()):
        raise Preempted(f"{len(failed)} units of {work.folder} stopped by a signal")
    lines = [f"  unit {index}: {_reason(error)}" for index, error in sorted(failed.items())]
    raise WorkFailed(
        f"{len(failed)} of {work.count} units of {work.folder} failed; the others are whole. Mend "
        "the cause and give the same command again:\n" + "\n".join(lines[:20])
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, DwfError):
        return str(error)
    if isinstance(error, BrokenProcessPool):
        return "a worker process died (killed, or out of memory): try fewer --workers"
    return f"{type(error).__name__}: {error}"
