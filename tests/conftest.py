"""What every test shares: one thread, no stray signals, small zoos of random networks."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dwf import trackers, trust
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.training import kernel
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, split_networks, write_zoo
from tests.zoos import facts_of

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def users_key(tmp_path_factory):
    """One key for all tests, since fixtures of modules write checkpoints that tests read."""
    state = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DWF_STATE", str(state))
        trust.signature({})
        yield state / "key"


@pytest.fixture(autouse=True)
def nothing_is_trusted(users_key, tmp_path_factory):
    """In each test a user who has named no code yet, and no trackers."""
    state = tmp_path_factory.mktemp("state")
    shutil.copy2(users_key, state)
    with pytest.MonkeyPatch.context() as patched:  # its own: a test may undo what it has patched
        patched.setenv("DWF_STATE", str(state))
        patched.setattr(trackers, "_chosen", ())
        for name in (trust.ENVIRONMENT, trust.PICKLES):
            patched.setenv(name, "")  # so that it is put back afterwards
        yield


@pytest.fixture(autouse=True)
def no_kernel_is_tried():
    """Runs that are compared have one kernel, whatever a trial of it would find."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kernel, "FEWEST_PRODUCTS", float("inf"))
        yield


@pytest.fixture
def make_zoo(tmp_path):
    """Write a zoo of random networks, MLPs of given widths or others: `make_zoo(...) -> Zoo`.

    `more` are further columns.
    """

    def make(
        count=12, widths=(64, 16, 10), name="small", seed=0, network=None, data=None, **more
    ) -> Zoo:
        config = network or MLPConfig(tuple(widths))
        layout = Layout.of(build_network(config))
        rng = np.random.default_rng(seed)
        weights = rng.standard_normal((count, layout.size)).astype(np.float32)
        columns = {
            "network": np.arange(count),
            "epoch": np.ones(count, np.int32),
            "split": split_networks(count, 0.2, test=0.2, seed=seed),
            **more,
        }
        path: Path = tmp_path / "zoos" / name
        told = {"seed": seed} | ({} if data is None else {"data": data})
        facts = facts_of(layout, config, **told)
        return write_zoo(path, facts, num_rows=count, blocks=[(columns, weights)])

    return make


@dataclass(frozen=True)
class Slurm:
    """A real Slurm on this machine, on whose login node the test runs."""

    folder: Path
    prefix: str
    small: Path
    """A file system of 16 MB that the nodes share."""

    def __call__(self, *words: str, check: bool = True, timeout: float = 60) -> str:
        """Give a Slurm command and return what it printed."""
        ran = subprocess.run(
            ["timeout", "-k", "5", str(timeout), *words], capture_output=True, text=True
        )
        assert not check or ran.returncode == 0, f"{words}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def tool(self, *words: str) -> None:
        """Give a command of `slurm_cluster.py`: kill-node, cut-node, revive-node."""
        tool = Path(__file__).parent / "slurm_cluster.py"
        subprocess.run([sys.executable, str(tool), *words, "--dir", str(self.folder)], check=True)


@pytest.fixture(scope="session")
def slurm():
    """Four nodes with a GPU each; partition `main` preempts `low`; SLURM_CONF is set."""
    if os.geteuid():
        pytest.skip("a real Slurm is started by root, on Debian")
    number = os.getpid() % 700  # a session beside this one has its own cluster
    folder = Path(f"/tmp/dwf-slurm-{number}")
    cluster = Slurm(folder, f"t{number}n", small=folder.with_name(f"{folder.name}-small"))
    cluster.small.mkdir(exist_ok=True)
    mounted = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(cluster.small)]
    subprocess.run(mounted, check=True)  # before the nodes start: they take over what is mounted
    where = ["--port", str(20000 + 16 * number), "--prefix", cluster.prefix]
    cluster.tool("start", "--nodes", "4", "--gpus", "1", "--mpi", "pmi2", *where)
    os.environ["SLURM_CONF"] = str(cluster.folder / "slurm.conf")
    yield cluster
    cluster.tool("stop")
    subprocess.run(["umount", str(cluster.small)], check=True)
    cluster.small.rmdir()
    del os.environ["SLURM_CONF"]


@pytest.fixture(scope="module")
def ray_nodes():
    """A Ray of two nodes of one CPU each, as `$RAY_ADDRESS`; this process is on the first.

    Yields it and its second node, which a test may remove.
    """
    import ray
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ["RAY_AUTH_TOKEN"] = "0" * 64
    cluster = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster, cluster.add_node(num_cpus=1)
    ray.shutdown()
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)
