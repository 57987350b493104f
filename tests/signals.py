"""Work that is held until a signal waits for it: its way is then long enough on any machine."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dwf import preemption


def wait_for(happened: Callable[[], object], what: str, seconds: float = 480) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.1)


@contextlib.contextmanager
def stopped(*processes: int) -> Iterator[None]:
    """Stop processes for a while; those that are killed meanwhile stay dead."""
    assert processes, "the work is over"
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        wait_for(lambda: all(map(is_stopped, processes)), "their stop")
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


@contextlib.contextmanager
def held(*processes: int) -> Iterator[None]:
    """Stop processes till a signal asks each to save; one rank that is held holds all."""
    with stopped(*processes):
        yield
        wait_for(lambda: all(is_asked(each) for each in processes), "the signals")


def is_asked(process: int) -> bool:
    """Whether a signal waits for a process that was stopped.

    Slurm wakes what it signals, unless that is a batch script: it may have saved and be gone.
    """
    try:
        waiting = int(facts_of_process(process)["ShdPnd"], 16)
        return not is_stopped(process) or any(waiting >> n - 1 & 1 for n in preemption.SIGNALS)
    except FileNotFoundError:
        return True


def is_stopped(process: int) -> bool:
    return facts_of_process(process)["State"][0] == "T"


def facts_of_process(process: int) -> dict[str, str]:
    return dict(re.findall(r"(\w+):\s*(.*)", Path(f"/proc/{process}/status").read_text()))


def facts_of(slurm, job: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", slurm("scontrol", "show", "job", job)))


def end_soon(slurm, job: str) -> None:
    """Set a time limit of whole minutes that is 35 seconds away at least.

    Slurm looks every 30 seconds, and signals early rather than late: at its next look.
    """
    hours, minutes, seconds = map(int, facts_of(slurm, job)["RunTime"].split(":"))
    limit = hours * 60 + minutes + -(-(seconds + 35) // 60)
    slurm("scontrol", "update", f"jobid={job}", f"TimeLimit={limit}")
