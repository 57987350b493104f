"""What tests of ranks on several nodes share: a zoo, a root to train in, ranks and their jobs."""

import time
from pathlib import Path

import pytest

from dwf.settings import load
from dwf.zoo import stage
from dwf.zoo.config import ZooConfig
from tests.signals import facts_of, wait_for
from tests.slurm.test_scripts import write

ZOO = {
    "network": {"kind": "mlp", "widths": [64, 16, 10]},
    "data": {"kind": "digits", "validation": 0.2},
    "count": 20,
    "recipe": {"epochs": 15, "batch_size": 64, "learning_rate": 0.01},
    "split": {"val": 0.2, "test": 0.2},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with a zoo, made in this process."""
    root = tmp_path_factory.mktemp("root")
    stage.train_zoo(load(ZooConfig, write(root, "zoo", data=ZOO)), root, name="zoo")
    return root


def root_of(test: Path, root: Path, name: str, settings: dict) -> Path:
    """A test's own root, with the zoo in it, and the settings as `NAME.yaml`."""
    (test / "zoos").mkdir()
    (test / "zoos" / "zoo").symlink_to(root / "zoos" / "zoo")
    write(test, name, data=settings)
    return test


def flags_of(nodes: int, script: str, settings: Path) -> tuple[str, ...]:
    """Flags of sbatch for a script on some nodes, a rank on each."""
    return ("--nodes", str(nodes), "--cpus-per-task", "1", script, "--config", str(settings))


def begin_again(slurm, job: str) -> None:
    """Slurm lets a requeued job wait; some seconds it needs, or takes old ends for new ones."""
    wait_for(lambda: facts_of(slurm, job)["JobState"] == "PENDING", "its place in the queue")
    time.sleep(3)
    slurm("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)


def rank_of(job: str, rank: int) -> int:
    """The process of a rank: nodes share this machine's process table."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            names = set((process / "environ").read_bytes().split(b"\0"))
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted <= names and b"generator" in words and b"-u" in words[:2]:
            return int(process.name)
    raise AssertionError(f"no rank {rank} of job {job}")
