"""Alignment by real MPI ranks: the bytes of one process, whatever happens on the way."""

import pytest

from dwf.align.config import AlignConfig
from dwf.align.report import read_report
from dwf.align.stage import align_zoo
from dwf.run_folder import hold
from dwf.zoo.shard import shard_name
from dwf.zoo.store import Zoo
from tests.align.test_stage import files_of, write_zoo
from tests.mpi import run_ranks

pytestmark = pytest.mark.mpi
SETTINGS = {
    "network": {"num_pairs": 5},
    "iterated_mean": {"reference": "iterated_mean", "max_rounds": 3, "num_pairs": 5},
}

# Says which shards each rank read; with a trouble, whoever has shard 1 comes to grief there.
ALIGN = f"""
import os, signal, sys
from pathlib import Path
from dwf import preemption
from dwf.align import shards, stage
from dwf.align.config import AlignConfig
from dwf.ranks import exit_together, world
from dwf.zoo.store import Zoo

root, trouble, *names = sys.argv[1:]
write, match, read_shard, read = shards._aligned_blocks, stage.match_shard, Zoo._read_shard, set()

def killed(zoo, index, *rest, **named):
    for block in write(zoo, index, *rest, **named):
        if trouble == "kill" and index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield block

def stopped(zoo, index, *rest, **named):
    if trouble == "stop" and index == 1:
        os.kill(os.getpid(), signal.SIGTERM)  # seen before the first chunk is matched
    return match(zoo, index, *rest, **named)

def noted(self, index, *rest):
    read.add(int(index))
    return read_shard(self, index, *rest)

def main():
    preemption.watch()
    for name in names:
        config = AlignConfig("zoo", **{SETTINGS}[name.split("-")[0]])
        stage.align_zoo(config, Path(root), name=name)
    print(f"rank {{world().rank}} of {{world().size}} read {{sorted(read)}}")

shards._aligned_blocks, stage.match_shard, Zoo._read_shard = killed, stopped, noted
exit_together(main)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder with a zoo of four shards, one empty, aligned by this process to each reference."""
    root = tmp_path_factory.mktemp("mpi")
    write_zoo(root)
    for reference, settings in SETTINGS.items():
        align_zoo(AlignConfig("zoo", **settings), root, name=reference)
    return root


def assert_equal(root, name):
    """An aligned zoo, its permutations, report and reference are those of one process."""
    reference = name.split("-")[0]
    one, other = (Zoo.open(root / "zoos" / each) for each in (reference, name))
    assert files_of(other.path) == files_of(one.path)
    assert read_report(other) == read_report(one)
    if reference == "iterated_mean":
        file = "run/checkpoints/reference.pt"
        assert (other.path / file).read_bytes() == (one.path / file).read_bytes()


def test_two_ranks_give_the_same_bytes(whole):
    names = [f"{reference}-2" for reference in SETTINGS]
    ran = run_ranks(2, "-c", ALIGN, whole, "none", *names)
    assert ran.returncode == 0, ran.stderr
    assert "rank 1 of 2 read [1]" in ran.stdout  # the last shard is empty
    for name in names:
        assert_equal(whole, name)


def test_four_ranks_do_too_and_go_on_where_two_were_killed(whole):
    path = whole / "zoos" / "network-killed"
    ran = run_ranks(2, "-c", ALIGN, whole, "kill", path.name)
    assert ran.returncode != 0 and not (path / shard_name(1, 4)).exists()
    assert not (path / "zoo.h5").exists()
    names = [path.name, *(f"{reference}-4" for reference in SETTINGS)]
    ran = run_ranks(4, "-c", ALIGN, whole, "none", *names)
    assert ran.returncode == 0, ran.stderr
    for rank, shards in {1: "[1]", 2: "[2]", 3: "[]"}.items():
        assert f"rank {rank} of 4 read {shards}" in ran.stdout
    for name in names:
        assert_equal(whole, name)


def test_a_signal_to_one_rank_stops_all_and_one_process_goes_on(whole):
    name = "iterated_mean-stopped"
    ran = run_ranks(2, "-c", ALIGN, whole, "stop", name)
    assert ran.returncode == 130, ran.stderr
    assert ran.stderr.count("stopped; what was finished is saved") == 1
    assert "read" not in ran.stdout and not (whole / "zoos" / name / "zoo.h5").exists()
    align_zoo(AlignConfig("zoo", **SETTINGS["iterated_mean"]), whole, name=name)
    assert_equal(whole, name)


def test_the_command_reports_once_and_refuses_once(whole):
    command = ["launch/align.py", "--root", whole, "--zoo", "zoo"]
    command += ["--num-pairs", "5", "--name", "network-command"]
    ran = run_ranks(2, *command)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("18 networks, 5 pairs") == 1
    assert ran.stderr.count("align zoo: 36 of 36 rows") == 1
    assert_equal(whole, "network-command")
    command[-1] = "held"  # a finished one is never refused
    with hold(whole / "zoos" / "held" / "run"):
        ran = run_ranks(2, *command)
    assert ran.returncode == 2
    assert ran.stderr.count("error: ") == ran.stderr.count("is being worked on by process") == 1
