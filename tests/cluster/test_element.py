"""What a job does when it is told to stop: it goes back into the queue by one way, once."""

import subprocess

import pytest

from dwf import preemption
from dwf.cluster import element, slurm
from dwf.errors import Preempted


class Work:
    folder = None
    finished = staticmethod(lambda folder: set())


@pytest.fixture
def told(tmp_path, monkeypatch):
    """An element whose units were stopped by Slurm's USR2, with `scontrol requeue` that fails."""
    monkeypatch.setattr(preemption, "watch", lambda: None)
    monkeypatch.setattr(preemption, "asked_by", lambda: (element.SIGNAL,))

    def run_units(work, units, *, workers):
        raise Preempted("stopped by SIGUSR2")

    def requeue(number, frame):
        raise subprocess.CalledProcessError(1, ["scontrol", "requeue", "7_0"])

    monkeypatch.setattr(element, "run_units", run_units)
    monkeypatch.setattr(preemption, "previous", lambda number: requeue)
    work = Work()
    work.folder = tmp_path
    return element.Element(work, [0, 1], workers=1)


def test_a_job_that_slurm_has_requeued_itself_ends_without_a_traceback(told, monkeypatch, caplog):
    """The grace time was over first: `scontrol requeue` says that the job is pending."""
    caplog.set_level("INFO", "dwf")
    monkeypatch.setattr(slurm, "own_state", lambda: "PENDING")
    with pytest.raises(SystemExit) as end:
        told()
    assert end.value.code == 1
    assert caplog.messages == [
        "Slurm has put this job back into the queue itself",
        "stopped by SIGUSR2: what was done is saved",
    ]


def test_a_job_that_cannot_be_requeued_fails_with_the_command(told, monkeypatch):
    monkeypatch.setattr(slurm, "own_state", lambda: "RUNNING")
    with pytest.raises(subprocess.CalledProcessError, match="scontrol"):
        told()


def test_a_cancelled_job_ends_without_a_traceback(told, monkeypatch):
    """`scancel` sends TERM alone, and Slurm says meanwhile that it ends the job."""
    monkeypatch.setattr(preemption, "asked_by", lambda: ())
    monkeypatch.setattr(slurm, "own_state", lambda: "COMPLETING")
    with pytest.raises(SystemExit):
        told()
