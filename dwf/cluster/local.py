"""Run units of work in worker processes on this machine, one thread each.

More workers rather than more threads: a unit's result then does not depend on how many there are.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import SpawnContext
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from dwf import preemption, screen
from dwf.cluster.work import (
    Refuse,
    attempt,
    missing,
    progress_of,
    raise_failures,
    reason,
    refuse_none,
    show,
)
from dwf.errors import Preempted
from dwf.metrics import SECONDS_BETWEEN_LINES, Progress, log_to_stderr, logger
from dwf.run_folder import hold
from dwf.stages import Runner, Work
from dwf.systems import num_cores

SECONDS_BETWEEN_LOOKS = 0.5
_POOLS = 3
_WORKER_DIED = "a worker process died (killed, or out of memory): try fewer --workers"

# Batched steps free and take the same tens of megabytes again and again; returning them to the
# kernel each time costs a page fault per 4 KiB (measured: a step takes 1.3 times as long).
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}
_unit_in_work = threading.Lock()  # of this worker
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def runner(workers: int | None = None, refuse: Refuse = refuse_none) -> Runner:
    """Return what runs `Work` here: `workers` processes, one per core, or GPU, by default."""
    return partial(run, workers=workers, refuse=refuse)


def run(work: Work, workers: int | None = None, *, refuse: Refuse = refuse_none) -> None:
    """Run the units that are not done; every unit is tried though others fail.

    Args:
        work: the units.
        workers: processes at once; default: one per core, or GPU.
        refuse: raises `RunConflict` where others have the work of a folder.

    Raises:
        RunConflict: another process works in this folder.
        WorkFailed: units failed; names each with its reason.
        Preempted: a signal asked to stop; the workers saved what they had.
    """
    refuse(work.folder)
    with hold(work.folder / "run"):
        workers = workers or (_num_gpus() if _is_for_gpu(work) else num_cores())
        raise_failures(work, run_units(work, missing(work), workers=workers))


def _is_for_gpu(work: Work) -> bool:
    """Whether the units of work compute on GPUs of this machine."""
    if work.device == "cpu":
        return False
    from dwf.devices import find_device

    return find_device(work.device, elsewhere=True).type == "cuda"


def _num_gpus() -> int:
    """How many GPUs are named as visible; one where none is named."""
    return max(
        1, len([name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name])
    )


def run_units(work: Work, units: list[int], *, workers: int) -> dict[int, str]:
    """Run units in worker processes; return why those failed that did.

    A GPU of `$CUDA_VISIBLE_DEVICES` goes to one worker each, in turn.

    Raises:
        Preempted: a signal asked to stop; the workers saved what they had.
    """
    if not units:
        return {}
    os.environ.update(KEEP_FREED_MEMORY | ONE_THREAD)
    failed: dict[int, str] = {}
    with progress_of(work) as bar:
        for _ in range(_POOLS):  # a worker that is killed takes its pool with it
            for index in units:
                failed.pop(index, None)
            failed |= _run_pool(work, units, workers, bar)
            units = [index for index, why in failed.items() if why == _WORKER_DIED]
            if not units:
                break
            logger.warning("a worker process died; it took %d units with it", len(units))
    return failed


def _run_pool(work: Work, units: list[int], workers: int, bar: Progress) -> dict[int, str]:
    # Spawned, not forked: HDF5 and torch hold threads and locks that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(units))
    _begin_tracker()
    start = (_devices(context, workers), screen.files())
    with ProcessPoolExecutor(workers, context, _begin, start) as pool:
        futures = {pool.submit(_do, work.unit, work.folder, index): index for index in units}
        waiting: set[Future] = set(futures)
        next_look = 0.0
        while waiting:
            _, waiting = wait(waiting, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
            began = time.monotonic()
            if began >= next_look or not waiting:  # tens of thousands of units take long to list
                show(work, bar)
                next_look = time.monotonic() + pause_after(time.monotonic() - began)
            if preemption.is_asked():
                _stop_workers(pool, waiting)
    errors = {index: future.exception() for future, index in futures.items()}
    if preemption.is_asked() and any(errors.values()):  # told just after the last look
        preemption.stop()
    if any(isinstance(error, Preempted) for error in errors.values()):
        raise Preempted(f"workers of {work.folder} were stopped by a signal")
    return {index: _reason(error) for index, error in errors.items() if error}


def _begin_tracker() -> None:
    """Start multiprocessing's tracker of semaphores so that signals for the work do not end it.

    Slurm signals every process of a job. The tracker ignores SIGTERM and SIGINT alone; where it
    ends, each process that leaves a pool starts another, which complains of what it does not know.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, preemption.SIGNALS)  # a child inherits it
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pause_after(took: float) -> float:
    """Return the seconds until the next look at a folder, after one that took so long.

    Looks are to cost little, but a single one that a stalled disk (or a stopped process) held up
    must not silence the progress for hours.
    """
    return min(50 * took, max(took, SECONDS_BETWEEN_LINES))


def _devices(context: SpawnContext, workers: int) -> SimpleQueue | None:
    """Hand out the visible GPUs; nothing where there is at most one."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if len(visible) < 2:
        return None
    queue = context.SimpleQueue()
    for worker in range(workers):
        queue.put(visible[worker % len(visible)])
    return queue


def _begin(devices: SimpleQueue | None, files: list[Path]) -> None:
    """First call in a worker: watch for signals, and do not outlive the parent."""
    preemption.watch()
    log_to_stderr()
    screen.follow(files)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices.get()


def _do(unit: Callable[[Path, int], None], folder: Path, index: int) -> None:
    with _unit_in_work:
        attempt(unit, folder, index=index)


def _end_with_parent() -> None:
    """End this worker after its parent, also by kill -9: what is in work is saved first.

    Its queue would not tell: a pool's workers hold both ends of it, and one without a unit would
    wait there for ever.
    """
    wait_for([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # the step boundary saves, then the unit ends
    with _unit_in_work:
        os._exit(128 + signal.SIGTERM)


def _stop_workers(pool: ProcessPoolExecutor, waiting: set[Future]) -> None:
    for future in waiting:  # a pool's own cancelling is taken back by whatever shuts it down next
        future.cancel()
    for worker in multiprocessing.active_children():
        worker.terminate()  # SIGTERM: the step boundary saves, then the unit ends
    pool.shutdown(wait=True)
    preemption.stop()


def _reason(error: BaseException) -> str:
    return _WORKER_DIED if isinstance(error, BrokenProcessPool) else reason(error)
