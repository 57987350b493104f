"""Ranks that meet through torch.distributed, and how one that is lost is noticed."""

import os
import subprocess
import sys
import threading
import time

import pytest
import torch.distributed as dist

from dwf import distributed
from dwf.errors import WorkFailed, WrongLaunch
from dwf.ranks import Ranks
from tests.ranked import ROOT, launch
from tests.test_ranks import LEAVE, TOGETHER

JOB = {"SLURM_JOB_ID": "812345", "SLURM_STEP_ID": "0"}
BEGIN = """
import sys
from pathlib import Path
from dwf import distributed
distributed.begin(Path(sys.argv[0]))
"""


def test_ranks_of_slurm_meet_at_the_first_nodes_own_address(tmp_path, monkeypatch):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '  "show hostnames n[03-04]") printf "n03\\nn04\\n";;\n'
        '  "show node n03") echo "NodeName=n03 CPUAlloc=1"; echo "   NodeAddr=10.0.0.3 Port=1";;\n'
        "  *) exit 1;;\n"
        "esac\n"
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (JOB | {"SLURM_STEP_NODELIST": "n[03-04]"}).items():
        monkeypatch.setenv(name, value)
    distributed._find_place(Ranks(1, 2))
    assert os.environ["MASTER_ADDR"] == "10.0.0.3"
    assert "MASTER_PORT" not in os.environ and distributed._asked_port(Ranks(1, 2)) == 0
    monkeypatch.delenv("MASTER_ADDR")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n[05-06]")
    with pytest.raises(WrongLaunch, match=r"scontrol show hostnames n\[05-06\]` does not .*MASTER"):
        distributed._find_place(Ranks(1, 2))


def test_ranks_that_cannot_know_where_to_meet_are_told(monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "MASTER_ADDR", "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WrongLaunch, match="mpiexec started rank 1 of 2, but not where they meet"):
        distributed._find_place(Ranks(1, 2, local=0, launcher="mpiexec"))


@pytest.mark.parametrize(("seen", "taken"), [(4, 3), (1, 0)])
def test_a_rank_takes_its_own_gpu_however_many_it_sees(monkeypatch, seen, taken):
    """And tells DeepSpeed, which takes the GPU of the number in LOCAL_RANK."""
    took = []
    monkeypatch.setattr(distributed.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(distributed.torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(distributed.torch.cuda, "set_device", took.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    distributed._take_device(Ranks(7, 8, local=3))
    assert took == [taken] and os.environ["LOCAL_RANK"] == str(taken)


def test_one_process_does_not_meet():
    program = f"{BEGIN}import torch\nprint(torch.distributed.is_initialized())"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ran.stdout == "False\n", ran.stderr


@pytest.fixture
def beats(monkeypatch):
    """Those of two ranks, in one process; an end of the process is noted only."""
    monkeypatch.setattr(distributed, "_SECONDS_BETWEEN_BEATS", 0.05)
    monkeypatch.setattr(distributed, "_MOST_MISSED", 10)
    ended = threading.Event()
    monkeypatch.setattr(distributed.os, "_exit", lambda code: ended.set())
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    pair = [None, None]

    def begin(rank):
        pair[rank] = distributed.Beats(store.clone(), Ranks(rank, 2))

    threads = [threading.Thread(target=begin, args=(rank,)) for rank in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    yield *pair, ended
    for each in pair:
        each._stop()


def test_ranks_that_beat_are_not_lost(beats):
    first, second, ended = beats
    assert first.lost() == [] and second.lost() == []
    second._stop()  # one that has ended is not missed, however long
    time.sleep(1)
    assert not ended.is_set()


def test_a_silent_rank_is_named_and_ends_the_others(beats, capsys):
    first, second, ended = beats
    second._ended.set()  # as if it were killed
    assert first.lost() == [1]
    error = first.tell([1], RuntimeError("[pair.cc:561] Connection closed by peer [::1]. Check."))
    assert isinstance(error, WorkFailed)
    assert f"rank 1 of 2 (process {os.getpid()} on " in str(error)
    assert "is gone (Connection closed by peer [::1]): it was killed" in str(error)
    assert ended.wait(5), "the first rank waits for ever"
    assert "rank 0: error: rank 1 of 2 (process" in capsys.readouterr().err


@pytest.mark.deepspeed
def test_ranks_of_torchrun_work_together_as_those_of_mpi(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(BEGIN + TOGETHER)
    ran = launch(3, program, timeout=120)
    assert ran.stdout == "all is well\n" and ran.returncode == 0, ran.stderr


@pytest.mark.deepspeed
@pytest.mark.parametrize(
    ("words", "told"),
    [(["user"], "error: shards\n"), (["bug", "alone"], "rank 1 of 2: Traceback")],
)
def test_an_error_is_told_once_and_ends_all_ranks(tmp_path, words, told):
    program = tmp_path / "program.py"
    program.write_text(BEGIN + LEAVE)
    ran = launch(2, program, *words, timeout=120)
    assert ran.returncode and ran.stderr.count(told) == 1, ran.stderr
    assert ran.stderr.count("error: shards") <= 1


@pytest.mark.deepspeed
def test_ranks_that_do_not_come_are_waited_for_but_not_for_ever(tmp_path):
    program = f"""
import datetime
from pathlib import Path
from dwf import distributed
from dwf.ranks import exit_together
distributed._MEETING = datetime.timedelta(seconds=3)
exit_together(lambda: distributed.begin(Path({str(tmp_path / "run")!r})))
"""
    alone = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | alone,
        capture_output=True,
        text=True,
        timeout=120,
    )
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert "rank 0 of 2 met no others at 127.0.0.1:0 (" in line and ran.returncode == 2
    assert not list(tmp_path.iterdir())
