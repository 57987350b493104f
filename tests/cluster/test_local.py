"""Units in processes of this machine: each is tried, and those that fail or die are named."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dwf import preemption, stages
from dwf.cluster import local
from dwf.errors import ConfigError, Preempted, WorkFailed
from tests.signals import wait_for


def unit(folder: Path, index: int) -> None:
    if index == 2:
        raise ConfigError("this unit cannot work")
    if index == 4:
        raise ValueError("a bug")
    (folder / f"{index}").write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")


def unit_that_dies(folder: Path, index: int) -> None:
    os.kill(os.getpid(), 9)


def unit_that_waits(folder: Path, index: int) -> None:
    (folder / f"begun-{index}").touch()
    if index == 0:
        os.kill(os.getppid(), signal.SIGTERM)
    while not preemption.is_asked():
        time.sleep(0.01)
    preemption.stop()


def unit_that_is_told(folder: Path, index: int) -> None:
    (folder / f"begun-{index}").touch()
    while not preemption.is_asked():
        time.sleep(0.01)
    preemption.stop()


def finished(folder: Path) -> set[int]:
    return {int(file.name) for file in folder.iterdir() if file.is_file()}


def progress(folder: Path) -> tuple[float, str]:
    return len(finished(folder)) / 6, ""


@dataclass(frozen=True)
class Work(stages.Work):
    """Six units, each a file."""

    count: int = 6
    unit: Callable[[Path, int], None] = unit
    finished: Callable[[Path], set[int]] = finished
    progress: Callable[[Path], tuple[float, str]] = progress
    what: str = "test"
    size: int = 6
    unit_name: str = "units"


def test_every_unit_is_tried_and_failures_are_listed(tmp_path):
    (tmp_path / "5").write_text("done before")
    with pytest.raises(WorkFailed) as failure:
        local.runner(workers=2)(Work(tmp_path))
    text = str(failure.value)
    assert "2 of 6 units" in text and "unit 2: this unit cannot work" in text
    assert "unit 4: ValueError: a bug" in text
    assert sorted(map(str, finished(tmp_path))) == ["0", "1", "3", "5"]
    assert (tmp_path / "5").read_text() == "done before", "a finished unit ran again"
    pid, threads = (tmp_path / "0").read_text().split()
    assert int(pid) != os.getpid() and threads == "1"


def test_a_worker_that_is_killed_is_reported(tmp_path):
    with pytest.raises(WorkFailed, match=r"a worker process died .* fewer --workers"):
        local.runner(workers=1)(Work(tmp_path, unit=unit_that_dies, count=1))


def test_after_a_signal_no_more_units_are_begun_than_lay_ready(tmp_path):
    """A pool keeps one unit more ready than it has workers; the twenty behind these stay away."""
    handlers = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    preemption.watch()
    try:
        waits = {
            "unit": unit_that_waits,
            "finished": lambda _: set(),
            "progress": lambda _: (0.0, ""),
        }
        work = Work(tmp_path, count=23, **waits)
        with pytest.raises(Preempted):
            local.runner(workers=1)(work)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        preemption.forget()
    assert 1 <= len(list(tmp_path.glob("begun-*"))) <= 3


def test_a_signal_to_every_process_of_a_job_leaves_no_traceback(tmp_path):
    """Slurm sends USR2 to all of a job, also to what multiprocessing keeps beside its workers."""
    code = f"""if True:
        from pathlib import Path
        from dwf import preemption, stages
        from dwf.cluster import local
        from dwf.errors import Preempted
        from tests.cluster.test_local import Work, unit_that_is_told
        waits = {{"finished": lambda _: set(), "progress": lambda _: (0.0, "")}}
        work = Work(Path({str(tmp_path)!r}), count=2, unit=unit_that_is_told, **waits)
        preemption.watch()
        try:
            local.run(work, workers=2)
        except Preempted as stopped:
            print(stopped)
    """
    words = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    job = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **words)
    wait_for(lambda: len(list(tmp_path.glob("begun-*"))) == 2, "both units")
    os.killpg(job.pid, signal.SIGUSR2)
    said, complained = job.communicate(timeout=120)
    assert (said, complained, job.returncode) == ("stopped by SIGUSR2\n", "", 0)


def test_a_look_that_was_held_up_silences_nothing():
    """Looks cost a fiftieth of the time; after one of 100 s the next is no 5,000 s away."""
    assert local.pause_after(0.01) == pytest.approx(0.5)
    assert local.pause_after(1.0) == pytest.approx(50)
    assert local.pause_after(20.0) == pytest.approx(60)
    assert local.pause_after(100.0) == pytest.approx(100)
