"""Watch units of work that run on a cluster until all are whole, or nobody is left to do them."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from dwf import preemption
from dwf.cluster import slurm
from dwf.cluster.board import Board
from dwf.cluster.config import SiteConfig
from dwf.cluster.element import failed_units, failure_path, jobs_folder
from dwf.cluster.slurm import Element
from dwf.cluster.submit import elements, job_numbers, submit_missing
from dwf.cluster.work import going_on, missing, raise_failures
from dwf.errors import StillRunning
from dwf.files import read_json
from dwf.jobs import Key
from dwf.run_folder import hold
from dwf.stages import Work

SECONDS_BETWEEN_LOOKS = 5.0
_SHARE_OF_LOOKING = 0.02
"""At most this share of the time goes into looking."""
_LOOKS_TO_BELIEVE = 2
_ROUNDS = 3
_LOG_END = 4096  # bytes


@dataclass(frozen=True)
class Slurm:
    """Runs `Work` as job arrays."""

    site: SiteConfig
    nodes: int
    wait: bool = True
    workers: int | None = None

    def __call__(self, work: Work) -> None:
        """Submit what is missing and wait for it.

        A job that was lost (its node died where nothing is requeued, it ran out of time unheard)
        is submitted again, twice at most; one that was cancelled, or whose unit failed, is not.

        Raises:
            RunConflict: a process works in this folder.
            WorkFailed: units failed; names node, reason and log file of each.
            StillRunning: `wait` is off, or a signal came; the jobs go on.
        """
        wanted = missing(work)
        for _ in range(_ROUNDS):
            with hold(work.folder / "run"):
                submit_missing(work, wanted, nodes=self.nodes, site=self.site, workers=self.workers)
            if not self.wait and missing(work):
                raise StillRunning(f"{work.what}: the jobs go on; {_look_again(work)}")
            watch(work)
            failed = failures(work)
            wanted = [index for index, (_, lost) in failed.items() if lost]
            if not wanted:
                break
        raise_failures(work, {index: why for index, (why, _) in failed.items()})


def watch(work: Work) -> None:
    """Show how far the work is until its units are whole or no living job has one of them."""
    alone = 0
    with Board(work) as board:
        while True:
            began = time.monotonic()
            todo = set(missing(work))
            alive = slurm.living()
            if alive is not None:
                mine = [
                    (alive[key], left)
                    for key, units in elements(work.folder).items()
                    if key in alive and (left := todo.intersection(units))
                ]
                counts, waiting = _count(work, todo, mine)
                board.show(len(todo), counts, waiting=waiting)
                # A job between a node's failure and its next run must not be taken for gone.
                alone = 0 if mine else alone + 1
            if not todo or alone >= _LOOKS_TO_BELIEVE:
                return
            _sleep(work, max(SECONDS_BETWEEN_LOOKS, (time.monotonic() - began) / _SHARE_OF_LOOKING))


def _sleep(work: Work, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if preemption.is_asked():
            raise StillRunning(f"\n{work.what}: the jobs go on; {_look_again(work)}")
        time.sleep(0.2)


def _look_again(work: Work) -> str:
    known, alive = elements(work.folder), slurm.living()
    jobs = " ".join(job_numbers(known.keys() & (alive or known) or known))
    return (
        f"look again with: {going_on(work.folder)}\n"
        f"  logs: {jobs_folder(work.folder)}\n  end them with: scancel {jobs}"
    )


def _count(
    work: Work, todo: set[int], mine: list[tuple[Element, set[int]]]
) -> tuple[Counter, set[str]]:
    """Count units by what is known of them, and collect why jobs wait."""
    counts: Counter = Counter()
    waiting = set()
    for element, units in mine:
        counts["queued" if element.is_queued else "running"] += len(units)
        if element.is_queued and element.why not in ("None", "JobArrayTaskLimit"):
            waiting.add(element.why)
    counts["failed"] = len(failed_units(work.folder) & todo)
    return counts, waiting


def failures(work: Work) -> dict[int, tuple[str, bool]]:
    """Return why each missing unit is missing, and whether its job was lost and may run again."""
    todo = missing(work)
    owner = {unit: key for key, units in elements(work.folder).items() for unit in units}
    ended = slurm.ends({owner[index] for index in todo if index in owner})
    return {index: _why(work.folder, index, owner.get(index), ended) for index in todo}


def _why(
    folder: Path, index: int, key: Key | None, ended: dict[Key, tuple[str, str]]
) -> tuple[str, bool]:
    file = failure_path(folder, index)
    if file.exists():
        told = read_json(file, keys=("node", "reason"))
        where = f" (node {told['node']}" + (f", log {told['log']})" if "log" in told else ")")
        return told["reason"] + where, False
    if key is None:
        return "no job was asked for it: give the command again", False
    state, node = ended.get(key, ("gone from the queue", "unknown"))
    names = (f"{key[0]}_{key[1]}_0_log.err", f"{key[0]}_0_log.err")  # of an array, of one job
    logs = [file for name in names if (file := jobs_folder(folder) / name).exists()]
    log = f", log {logs[0]}" if logs else ""
    said = _last_line(logs[0]) if logs else ""
    why = f"its job {key[0]}_{key[1]} is {state} (node {node}{log}){said and f': {said}'}"
    return why, state in slurm.LOST


def _last_line(log: Path) -> str:
    """Return what a log says last, of its last kilobytes; control characters are left out."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_END))
        text = file.read().decode("utf-8", "replace")
    lines = ["".join(filter(str.isprintable, line)).strip() for line in text.splitlines()]
    return next(filter(None, reversed(lines)), "")
