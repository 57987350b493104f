"""Ranks: who they are by the launcher's variables, and what real ones do together."""

import os
import re
import subprocess
import sys

import pytest

from dwf.ranks import Ranks, World, find_ranks, world
from tests.mpi import ROOT, run_ranks

# As a real Slurm 22.05 sets them.
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0", "SLURM_NNODES": "2"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "2"}
MPI = {"PMI_RANK": "1", "PMI_SIZE": "3"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Ranks(0, 1, local=0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Ranks(3, 4, local=1)),
        (BATCH, Ranks(0, 1, local=0)),
        (STEP | {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"}, Ranks(5, 8, local=2)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, Ranks(1, 2, local=0)),
        (MPI, Ranks(1, 3, local=0)),
        (STEP | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"} | MPI, Ranks(1, 3, local=0)),
        ({"RANK": "0", "WORLD_SIZE": "1"} | MPI, Ranks(0, 1, local=0)),
    ],
)
def test_ranks_come_from_whatever_launched_this_process(environment, expected):
    found = find_ranks(environment)
    assert found == expected and found.is_first == (expected.rank == 0)


def test_one_process_computes_lazily_and_imports_no_mpi():
    ours, seen = world(), []
    assert isinstance(ours, World) and (ours.rank, ours.size, ours.is_first) == (0, 1, True)
    parts = ours.in_order(3, lambda index: seen.append(index) or index * 10)
    assert next(parts) == 0 and seen == [0]
    assert list(parts) == [10, 20] and list(ours.to_first(2, str)) == ["0", "1"]
    assert ours.on_first(divmod, 7, 2) == ours.on_all(divmod, 7, 2) == (3, 1)
    program = "import sys, dwf.ranks as r; r.world().barrier(); print('mpi4py' in sys.modules)"
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | BATCH, capture_output=True, text=True)
    assert ran.stdout == "False\n", ran.stderr


def test_alone_no_launcher_counts_however_deep():
    program = "from dwf.ranks import alone, world\nwith alone():\n  with alone(): pass\n"
    command = [sys.executable, "-c", program + "  print(world().size)"]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | MPI, capture_output=True, text=True)
    assert ran.stdout == "1\n", ran.stderr


TOGETHER = """
import sys, time
import numpy as np
from dwf.errors import ConfigError
from dwf.ranks import world

ours = world()
mine = []

def part(index):
    mine.append(index)
    assert world().size == 1  # a part is one process's work, whatever it calls
    return np.random.default_rng(index).standard_normal(11) * 10.0 ** (index % 5)

expected = [np.random.default_rng(i).standard_normal(11) * 10.0 ** (i % 5) for i in range(7)]
assert np.array_equal(list(ours.in_order(7, part)), expected)
at_first = list(ours.to_first(7, part))
assert np.array_equal(at_first, expected) if ours.is_first else at_first == [None] * 7
assert mine == 2 * list(range(ours.rank, 7, ours.size))
in_order = np.zeros(11)
for each in expected:
    in_order += each
assert np.array_equal(ours.add_up(7, part, shape=(11,)), in_order)
assert not np.array_equal(in_order, sum(expected[::-1]))  # another order, other bits
assert np.array_equal(ours.add_up(0, part, shape=(2, 3)), np.zeros((2, 3)))
assert ours.on_first(lambda: ours.rank) == 0 and ours.on_all(lambda: ours.rank) == ours.rank
assert ours.on_first(divmod, 7, 1 + ours.rank) == (7, 0)
assert ours.on_all(round, 1.26, ndigits=1 + ours.rank) == round(1.26, 1 + ours.rank)
@ours.on_first
def place() -> str:
    return f"rank {ours.rank}"
assert place == "rank 0"
assert ours.any(ours.rank == 2) and not ours.any(False)

class Odd(Exception):
    def __init__(self, one, two):  # cannot be unpickled
        super().__init__("odd")

def fails(index):
    if index == 4:
        raise Odd(1, 2)
    if index in (2, 5):
        raise ConfigError(f"part {index} is wrong")
    return index

found = []
for attempt in (
    lambda: list(ours.in_order(7, fails)),
    lambda: ours.add_up(1, lambda index: fails(4), shape=()),
    lambda: ours.on_first(lambda: fails(2)),
    lambda: ours.on_all(lambda: fails(5 if ours.rank else 0)),
):
    try:
        attempt()
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
assert found == [
    "ConfigError: part 2 is wrong",
    "RuntimeError: Odd: odd",
    "ConfigError: part 2 is wrong",
    "ConfigError: part 5 is wrong",
], found
begun = time.process_time()
ours.on_first(lambda: time.sleep(0.5))
assert time.process_time() - begun < 0.2, "a rank that waits takes no core"
if ours.is_first:
    print("all is well")
"""


@pytest.mark.mpi
def test_real_ranks_agree_on_parts_sums_and_errors():
    ran = run_ranks(3, "-c", TOGETHER)
    assert ran.stdout == "all is well\n" and ran.returncode == 0, ran.stderr


LEAVE = """
import sys
from dwf.errors import ConfigError, Preempted
from dwf.ranks import exit_together, world

def fail(index):
    raise {"user": ConfigError("shards"), "stop": Preempted("x"), "bug": KeyError("b")}[sys.argv[1]]

def main():
    list(world().in_order(2, fail))

def main_alone():
    if world().rank == 1:
        fail(1)
    world().barrier()  # the others would wait for ever

exit_together(main_alone if sys.argv[2:] else main)
"""


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["user"], 2, "error: shards\n"),
        (["stop"], 130, "stopped; what was finished is saved"),
        (["bug"], 1, "KeyError: 'b'\n"),
        (["user", "alone"], 2, "rank 1 of 2: error: shards\n"),
        (["bug", "alone"], 1, "rank 1 of 2: Traceback"),
    ],
)
def test_an_error_is_told_once_and_ends_all_ranks(words, code, told):
    ran = run_ranks(2, "-c", LEAVE, *words, timeout=30)
    assert ran.returncode == code and ran.stderr.count(told) == 1, ran.stderr
    assert ran.stderr.count("error: shards") <= 1 and ran.stderr.count("Traceback") <= 1


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            MPI | {"MPI4PY_LIBMPI": "/missing/libmpi.so"},
            r"by mpiexec or .* as rank 1 of 3, but no MPI library can be loaded .*pip install mpi4",
        ),
        (
            STEP | {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"},
            r"by srun as rank 5 of 8, but MPI \(MPICH.*\) connects it to 1 of them: .*--mpi=pmi2",
        ),
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
            r"by mpirun as rank 0 of 2, but MPI \(MPICH.*\) connects it to 1",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "2"},
            r"by torchrun as rank 0 of 2, but this command's ranks .*mpiexec -n 2 .*--engine ddp",
        ),
    ],
    ids=["no library", "srun without --mpi", "another library's mpirun", "torchrun"],
)
@pytest.mark.mpi
def test_ranks_that_cannot_work_together_are_a_users_error(environment, message):
    program = "from dwf.ranks import exit_together, world; exit_together(world)"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 2, ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(message, line), line


STOP = """
import os, signal, sys, time
from dwf import preemption
from dwf.ranks import exit_together, world

def main():
    preemption.watch()
    work(int(os.environ["PMI_RANK"]))

def work(rank):
    for step in range(1000):
        if rank == 1 and step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # the other rank is ahead
        if preemption.agreed():
            print(f"rank {rank} stops at {step}", flush=True)
            preemption.stop()

exit_together(main)
"""


@pytest.mark.mpi
def test_a_signal_to_one_rank_stops_all_at_the_same_step():
    ran = run_ranks(2, "-c", STOP)
    stopped = sorted(re.findall(r"rank \d stops at \d+", ran.stdout))
    assert stopped == ["rank 0 stops at 3", "rank 1 stops at 3"], ran.stderr
    assert ran.returncode == 130 and "Abort" not in ran.stderr, ran.stderr
    assert ran.stderr.count("stopped; what was finished is saved") == 1
