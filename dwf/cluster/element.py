"""The program on a node: one element of a job array, which does some units.

submitit pickles it and calls it there. When a signal comes, the units save and stop; submitit's
own handler then puts the job back into the queue, and the same element resumes.
"""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dwf import preemption
from dwf.cluster import slurm
from dwf.cluster.local import run_units
from dwf.errors import Preempted
from dwf.metrics import log_to_stderr, logger
from dwf.run_folder import write_json
from dwf.stages import Work

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

SIGNAL = signal.SIGUSR2
"""Signal that submitit asks Slurm to send before the time limit and before a preemption."""


def jobs_folder(folder: Path) -> Path:
    """Return where the records and logs of a run's jobs lie."""
    return folder / "run" / "jobs"


def failure_path(folder: Path, index: int) -> Path:
    """Return the file that says why a unit failed."""
    return jobs_folder(folder) / f"failed-{index:05d}.json"


def failed_units(folder: Path) -> set[int]:
    """Return the units that have such a file; one listing, however many units there are."""
    return {int(file.stem.split("-")[1]) for file in jobs_folder(folder).glob("failed-*.json")}


def forget_failures(folder: Path, units: Iterable[int]) -> None:
    """Remove what earlier attempts at units said: they are tried again."""
    for index in failed_units(folder).intersection(units):
        failure_path(folder, index).unlink(missing_ok=True)


@dataclass
class Element:
    """Units that an element of a job array does, `workers` at a time."""

    work: Work
    units: list[int]
    workers: int

    def __call__(self) -> None:
        """Do the units; write down why those failed that did.

        Raises:
            SystemExit: a signal asked to stop; what was done is saved.
        """
        preemption.watch()
        log_to_stderr()
        folder = self.work.folder
        todo = sorted(set(self.units) - self.work.finished(folder))
        forget_failures(folder, todo)
        try:
            failed = run_units(self.work, todo, workers=self.workers)
        except Preempted as stopped:
            _give_back()
            logger.warning("%s: what was done is saved", stopped)
            sys.exit(1)  # of an error submitit would print where it was raised
        for index, why in failed.items():
            write_json(failure_path(folder, index), {"unit": index, "reason": why} | _place())

    def checkpoint(self, *arguments: object, **settings: object) -> "DelayedSubmission":
        """Return what submitit is to call when the job runs again: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *arguments, **settings)


def _give_back() -> None:
    """Requeue this job, through the handler that submitit set; units have saved.

    Slurm's own SIGTERM alone says too little: at a preemption it will requeue the job itself, at
    `scancel` it must not be. So wait for what comes, unless the job is being ended already.
    """
    while SIGNAL not in preemption.asked_by():
        if slurm.own_state() != "RUNNING":
            return
        time.sleep(1)
    handler = preemption.previous(SIGNAL)
    if callable(handler):
        try:
            handler(SIGNAL, None)
        except subprocess.CalledProcessError:  # of `scontrol requeue`
            if slurm.own_state() == "RUNNING":
                raise
            logger.info("Slurm has put this job back into the queue itself")


def _place() -> dict[str, str]:
    place = {"node": os.environ.get("SLURMD_NODENAME", platform.node())}
    with contextlib.suppress(Exception):  # not in a job
        from submitit import JobEnvironment

        environment = JobEnvironment()
        place |= {"job": environment.job_id, "log": str(environment.paths.stderr)}
    return place
