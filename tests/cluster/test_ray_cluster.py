"""Units as tasks of a real Ray: failures, workers and nodes that die, saves; the same bytes."""

import dataclasses
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dwf import preemption
from dwf.cluster import ray_cluster
from dwf.errors import ConfigError, Preempted, RunConflict, WorkFailed
from dwf.run_folder import hold
from dwf.settings import to_dict
from dwf.zoo import family, stage
from tests.cluster.test_local import Work
from tests.zoo.test_family import FAMILY, bytes_of
from tests.zoo.test_stage import CONFIG, files_of

pytestmark = pytest.mark.ray

LONGER = dataclasses.replace(
    CONFIG, recipe=dataclasses.replace(CONFIG.recipe, epochs=200), keep_epochs=(0, 200)
)


@pytest.fixture(scope="module")
def nodes(ray_nodes):
    return ray_nodes[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The zoo's files, trained in this process without a pause."""
    return files_of(stage.train_zoo(LONGER, tmp_path_factory.mktemp("whole"), name="zoo").path)


@pytest.fixture
def watched():
    """Signals set the flag that units look at, for one test."""
    handlers = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    preemption.watch()
    yield
    preemption.forget()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def unit(folder: Path, index: int) -> None:
    """Unit 1 is killed once, 4 cannot write once; 2 and 3 never work."""
    first = not (folder / "run" / f"tried-{index}").exists()
    (folder / "run" / f"tried-{index}").touch()
    if index == 2:
        raise ConfigError("this unit cannot work")
    if index == 3 or (index == 1 and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if index == 4 and first:
        raise OSError(5, "Input/output error")
    (folder / f"{index}").write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")


def train_together(folder: Path, index: int) -> None:
    """Train a shard once two of them are at work, one on each node."""
    (folder / "run" / f"at-work-{index}").touch()
    deadline = time.monotonic() + 60
    while len(list(folder.glob("run/at-work-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    stage.train_shard(folder, index)


def when(happened: Callable[[], bool], then: Callable[[], object]) -> threading.Thread:
    """Do something once, in a thread, as soon as something else has happened."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while not happened() and time.monotonic() < deadline:
            time.sleep(0.02)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_units_are_tried_again_and_those_that_cannot_work_are_listed(nodes, tmp_path):
    (tmp_path / "5").write_text("done before")
    with pytest.raises(WorkFailed) as failure:
        ray_cluster.runner()(Work(tmp_path, unit=unit))
    text = str(failure.value)
    assert "2 of 6 units" in text
    assert f"unit 2: this unit cannot work (on node {platform.node()})" in text
    assert "unit 3: its worker process died 4 times (killed, or out of memory)" in text
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == list("0145")
    assert (tmp_path / "5").read_text() == "done before", "a finished unit ran again"
    for index in "014":
        pid, threads = (tmp_path / index).read_text().split()
        assert int(pid) != os.getpid() and threads == "1"


def test_a_folder_in_work_is_left_alone(nodes, tmp_path):
    with hold(tmp_path / "run"), pytest.raises(RunConflict, match=f"process {os.getpid()} on "):
        ray_cluster.runner()(Work(tmp_path))


def test_a_node_that_is_removed_loses_nothing(nodes, whole, tmp_path):
    """Both nodes train a shard when the second is killed."""
    folder = tmp_path / "zoos" / "zoo"
    (node,) = nodes.worker_nodes
    begun = [folder / "run" / "work" / f"cohort-{n:07d}-epoch-00000.npz" for n in (0, 8)]
    whole_then: list[int] = []

    def remove() -> None:
        whole_then.append(len(stage.finished_shards(folder)))
        nodes.remove_node(node, allow_graceful=False)

    def run(work: stage.Work) -> None:
        ray_cluster.run(dataclasses.replace(work, unit=train_together))

    thread = when(lambda: all(file.exists() for file in begun), remove)
    zoo = stage.train_zoo(LONGER, tmp_path, name="zoo", run=run)
    thread.join()
    nodes.add_node(num_cpus=1)
    assert whole_then == [0], "the node was removed too late to show anything"
    assert files_of(zoo.path) == whole


def test_a_family_of_zoos_has_the_same_bytes(nodes, tmp_path):
    here = family.train_zoos(FAMILY, tmp_path / "here", name="both")
    there = family.train_zoos(FAMILY, tmp_path, name="both", run=ray_cluster.runner())
    for label, zoo in here.items():
        assert bytes_of(there[label].path) == bytes_of(zoo.path)


def test_a_signal_saves_the_units_in_work_and_the_next_call_goes_on(
    nodes, whole, watched, tmp_path
):
    work = tmp_path / "zoos" / "zoo" / "run" / "work"
    thread = when(
        lambda: bool(list(work.glob("cohort-*-epoch-00000.npz"))),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
    )
    with pytest.raises(Preempted, match="SIGTERM"):
        stage.train_zoo(LONGER, tmp_path, name="zoo", run=ray_cluster.runner())
    thread.join()
    saved = {file: file.stat().st_mtime_ns for file in work.glob("cohort-*.pt")}
    assert saved, "nothing was saved"  # by time they save every few minutes only
    time.sleep(0.5)
    assert saved == {file: file.stat().st_mtime_ns for file in work.glob("cohort-*.pt")}
    preemption.forget()
    zoo = stage.train_zoo(LONGER, tmp_path, name="zoo", run=ray_cluster.runner())
    assert files_of(zoo.path) == whole


def test_a_ray_started_here_trains_the_same_bytes_and_leaves_nothing(whole, tmp_path):
    """From the command line: nothing in the home folder, nor in the temporary one."""
    file = tmp_path / "zoo.yaml"
    file.write_text(yaml.safe_dump(to_dict(LONGER)))
    home = tmp_path / "home"
    (home / ".cache").mkdir(parents=True)
    temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # short, as Ray needs it
    words = [sys.executable, "launch/zoo.py", "--config", str(file), "--root", str(tmp_path)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    ran = subprocess.run(
        [*words, "--backend", "ray", "--workers", "2"],
        env=environment | {"HOME": str(home), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    assert files_of(tmp_path / "zoos" / "zoo") == whole
    assert not (home / ".ray").exists()
    assert not list(temporary.glob("ray*"))
    shutil.rmtree(temporary)


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"RAY_ADDRESS": "127.0.0.1:9"}, r"RAY_ADDRESS = 127.0.0.1:9: no Ray answers .*refused"),
        ({"SLURM_JOB_NUM_NODES": "4"}, r"this job has 4 nodes.* `sbatch --nodes 4 slurm/zoo.sh`"),
    ],
)
def test_where_no_ray_is_the_way_to_one_is_told(tmp_path, environment, message):
    program = "from dwf.cluster import ray_cluster as r; r.connect()"
    clean = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=clean | environment, capture_output=True, text=True
    )
    assert ran.returncode and "ConfigError" in ran.stderr
    assert re.search(message, ran.stderr), ran.stderr
