"""Zoos on a real Slurm through everything a cluster does to them; the bytes are always the same."""

import contextlib
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dwf.cluster import local
from dwf.datasets.config import DataConfig
from dwf.networks.config import MLPConfig
from dwf.run_folder import load_state
from dwf.settings import to_dict
from dwf.zoo import family, stage
from dwf.zoo.config import RecipeConfig, ZooComputeConfig, ZooConfig
from dwf.zoo.store import Zoo
from tests.signals import end_soon, held, stopped
from tests.zoo.test_family import FAMILY, SHARED, ZOOS, bytes_of

pytestmark = pytest.mark.cluster

# Four shards, each some seconds of work, saved from its first epoch on.
CONFIG = ZooConfig(
    network=MLPConfig((64, 16, 10)),
    data=DataConfig("digits", validation=0.2),
    count=16,
    recipe=RecipeConfig(epochs=120, batch_size=32, learning_rate=0.003),
    keep_epochs=(60, 120),
    cohort=4,
    shard=4,
    compute=ZooComputeConfig(save_seconds=0.05),
)
SITE = {"gpus_per_node": 1, "cpus_per_node": 2, "time": "10", "signal_seconds": 30}


@dataclass
class Launch:
    """One launch/zoo.py in a process of its own."""

    root: Path
    process: subprocess.Popen
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait(self, slurm, code: int = 0, seconds: float = 600) -> str:
        """Wait for its end; jobs that wait to be begun again begin at once."""
        end, seen = time.monotonic() + seconds, {}
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running:\n{self.text}\n{slurm('squeue')}"
            begin_again(slurm, seen)
            time.sleep(0.5)
        assert self.process.returncode == code, self.text
        return self.text

    @property
    def folder(self) -> Path:
        return self.root / "zoos" / "zoo"

    @property
    def logs(self) -> str:
        jobs = self.folder / "run" / "jobs"
        return "".join(file.read_text() for file in sorted(jobs.glob("*_log.*")))


def begin_again(slurm, seen: dict[str, float]) -> None:
    """Slurm lets a requeued job wait for two minutes; `seen` is when each was first found waiting.

    A few seconds it needs: until then the end of the last attempt may be taken for the next's.
    """
    waiting = slurm("squeue", "-h", "-r", "-t", "PD", "-o", "%A|%r", check=False).split()
    for line in waiting:
        job, reason = line.split("|")
        if reason == "BeginTime" and time.monotonic() - seen.setdefault(job, time.monotonic()) > 3:
            slurm("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)
            del seen[job]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Zoo:
    """The same zoo, trained on this machine."""
    return stage.train_zoo(
        CONFIG, tmp_path_factory.mktemp("whole"), name="zoo", run=local.runner(2)
    )


@pytest.fixture
def launch(slurm, tmp_path):
    """Give `launch/zoo.py FLAGS`; whatever is left is cancelled at the end."""
    begun: list[Launch] = []
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump(to_dict(CONFIG)))
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(SITE))

    def give(*flags: str, root: Path = tmp_path) -> Launch:
        words = ["launch/zoo.py", "--config", str(tmp_path / "zoo.yaml"), "--root", str(root)]
        environment = os.environ | {"DWF_CLUSTER": str(tmp_path / "site.yaml")}
        environment |= {"SQUEUE_STATES": "RUNNING", "SACCT_FORMAT": "user"}  # a user's habits
        log = tmp_path / f"launch-{len(begun)}.log"
        with open(log, "w") as file:
            process = subprocess.Popen(
                [sys.executable, *words, *flags], stdout=file, stderr=file, env=environment
            )
        begun.append(Launch(root, process, log=log))
        return begun[-1]

    yield give
    for one in begun:
        one.process.kill()
        one.process.wait()
    slurm("scancel", "-u", "root", check=False)
    until(lambda: not slurm("squeue", "-h").strip())


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def saved(launch: Launch) -> Callable[[], bool]:
    """Whether a cohort has saved itself while it was trained, after its first epoch."""

    def happened() -> bool:
        for file in (launch.folder / "run" / "work").glob("cohort-*.pt"):
            with contextlib.suppress(FileNotFoundError):  # its cohort has ended meanwhile
                if load_state(file)["epoch"]:
                    return True
        return False

    return happened


def workers() -> list[int]:
    """The processes that train in jobs: nodes share this machine's process table."""
    found = []
    ours = f"SLURM_CONF={os.environ['SLURM_CONF']}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            names = (process / "environ").read_bytes().split(b"\0")
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        in_job = ours in names and any(name.startswith(b"SLURM_JOB_ID=") for name in names)
        if in_job and b"--multiprocessing-fork" in words:
            found.append(int(process.name))
    return found


def node_of(slurm, state: str = "R") -> str:
    return slurm("squeue", "-h", "-t", state, "-o", "%N").split()[0]


def equal(launch: Launch, whole: Zoo) -> None:
    """Every file of the zoo has the bytes of the local one, and nothing else is left."""
    found = {file.name: file.read_bytes() for file in launch.folder.glob("*") if file.is_file()}
    assert found == {
        file.name: file.read_bytes() for file in whole.path.glob("*") if file.is_file()
    }
    assert not list(launch.folder.rglob("*.partial-*"))


def test_the_whole_way(slurm, launch, whole):
    """Submitted as shown, attached to by others, refused here meanwhile; all nodes were used."""
    shown = launch("--name", "zoo", "--nodes", "4", "--dry-run")
    script = shown.wait(slurm).split("sbatch script:\n")[1]
    script = re.sub(r"^  ", "", script, flags=re.MULTILINE)
    assert not (shown.root / "zoos").exists(), "a dry run touched something"

    slurm("scontrol", "update", "partition=main", "state=down")  # jobs wait
    try:
        first = launch("--name", "zoo", "--nodes", "4", "--no-wait")
        said = first.wait(slurm)
        assert "the jobs go on; look again with: dwf zoo --resume --name zoo" in said
        jobs = first.folder / "run" / "jobs"
        (submitted,) = jobs.glob("*_submission.sh")
        assert script.startswith(submitted.read_text().rstrip())
        assert "--cpus-per-task=2 " in script and "#SBATCH --signal=USR2@30" in script

        here = launch("--name", "zoo", "--local")
        left = launch("--name", "zoo", "--nodes", "4")
        bare = launch("--name", "zoo", "--resume")  # from another shell, told nothing of Slurm
        job = submitted.name.split("_")[0]
        assert f"is being worked on by Slurm job {job}: watch it" in here.wait(slurm, code=2)
        for attached in (left, bare):
            until(lambda a=attached: f"attached to what runs already: job {job}" in a.text)
        left.process.send_signal(signal.SIGINT)
        assert "the jobs go on; look again with: dwf zoo --resume" in left.wait(slurm)
    finally:
        slurm("scontrol", "update", "partition=main", "state=up")
    assert "32 rows in" in bare.wait(slurm)
    equal(first, whole)
    used = slurm("sacct", "-j", job, "-X", "-n", "-P", "-o", "NodeList").split()
    assert len(set(used)) == 4, used
    assert "finished already" in launch("--name", "zoo", "--resume").wait(slurm)


def test_a_family_is_one_array(slurm, launch, tmp_path):
    """The shards of both zoos, on whichever node; the same bytes as here."""
    said = {"zoos": ZOOS, "shared": SHARED, "seed": FAMILY.seed}
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump(said))
    one = launch("--name", "zoo", "--nodes", "4")
    here = family.train_zoos(FAMILY, tmp_path / "here", name="zoo")
    one.wait(slurm)
    (submitted,) = (one.folder / "run" / "jobs").glob("*_submission.sh")
    assert "#SBATCH --array=0-3%4" in submitted.read_text()
    for zoo in here.values():
        assert bytes_of(one.root / "zoos" / zoo.name) == bytes_of(zoo.path)
    assert bytes_of(one.folder) == bytes_of(tmp_path / "here" / "zoos" / "zoo")
    assert not list(one.root.glob("zoos/*/*.partial-*"))


def test_a_preempted_job_goes_on_from_its_last_save(slurm, launch, whole):
    one = launch("--name", "zoo", "--nodes", "4", "--partition", "low")
    until(saved(one))
    with held(*workers()):  # or their work might be over before the nodes are taken
        asked = ("-p", "main", "-N4", "--gpus-per-node=1", "--output=/dev/null")
        slurm("sbatch", *asked, "--wrap", "srun true")
    one.wait(slurm)
    equal(one, whole)
    assert re.search(r"cohort-\d+ goes on from epoch [1-9]", one.logs), one.logs
    assert "Requeued job" in one.logs


@pytest.mark.parametrize("fault", ["kill-node", "cut-node"])
def test_a_lost_node_is_no_end(slurm, launch, whole, fault):
    """One that lost its network goes on writing, while Slurm runs its shard elsewhere: two attempts
    at one shard, one whole shard."""
    one = launch("--name", "zoo", "--nodes", "4")
    until(saved(one))
    with stopped(*workers()):  # or their work might be over before the node is lost
        node = node_of(slurm)
        slurm.tool(fault, node)
    try:
        one.wait(slurm)
        equal(one, whole)
        Zoo.open(one.folder).verify()
    finally:
        slurm.tool("revive-node", node)


class Planted:
    """An object that makes a file where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def planted_pickles(jobs: Path) -> Path:
    """Write such objects for the next job numbers, each element; return the file that they make."""
    mark = jobs.parent / "planted"
    last = max(int(file.name.split("_")[0]) for file in jobs.glob("*_submission.sh"))
    for number in range(last + 1, last + 9):
        for index in range(4):
            file = jobs / f"{number}_{index}_submitted.pkl"
            file.write_bytes(pickle.dumps(Planted(mark)))
    return mark


def test_cancelled_then_resumed_trains_only_what_is_missing(slurm, launch, whole):
    one = launch("--name", "zoo", "--nodes", "1")
    until(lambda: list(one.folder.glob("shard-*")))
    slurm("scancel", "-u", "root")
    assert re.search(r"unit \d: its job \d+_\d is CANCELLED", one.wait(slurm, code=2)), one.text
    before = {file.name: file.stat().st_mtime_ns for file in one.folder.glob("shard-*")}
    assert 1 <= len(before) < 4
    planted = planted_pickles(one.folder / "run" / "jobs")
    again = launch("--name", "zoo", "--resume")
    again.wait(slurm)
    equal(again, whole)
    assert not planted.exists(), "a job ran what a file of its number held"
    after = {file.name: file.stat().st_mtime_ns for file in one.folder.glob("shard-*")}
    assert after == after | before


def test_a_shard_that_always_fails_is_reported_after_the_others(slurm, launch, whole):
    one = launch("--name", "zoo", "--nodes", "4")
    blocked = one.folder / "run" / "work" / "cohort-0000008-epoch-00120.npz"
    (blocked / "in the way").mkdir(parents=True)
    said = one.wait(slurm, code=2)
    (line,) = (line for line in said.splitlines() if "unit " in line)
    assert "unit 2: Is a directory: " in line, said
    node, log = re.search(r"\(node (\S+), log (\S+)\)", line).groups()
    assert node.startswith(slurm.prefix) and "trying again (2)" in Path(log).read_text()
    assert len(list(one.folder.glob("shard-*"))) == 3 and not (one.folder / "zoo.h5").exists()
    (blocked / "in the way").rmdir()
    blocked.rmdir()
    again = launch("--name", "zoo", "--resume")
    again.wait(slurm)
    equal(again, whole)


def test_a_file_system_that_is_full_for_a_while(slurm, launch, whole):
    """The cohorts' saves fail with ENOSPC on the nodes; space is made while they try again."""
    one = launch("--help")
    work = one.folder / "run" / "work"
    work.parent.mkdir(parents=True)
    work.symlink_to(slurm.small)
    one = launch("--name", "zoo", "--nodes", "4")
    until(saved(one))
    with open(slurm.small / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    until(lambda: "trying again" in one.logs)
    (slurm.small / "filler").unlink()
    one.wait(slurm)
    assert "No space left on device" in one.logs
    equal(one, whole)


def test_a_time_limit_shorter_than_the_work(slurm, launch, tmp_path):
    """Held till Slurm tells it to save, 30 to 60 seconds before the limit."""
    here = launch("--name", "zoo", "--count", "4", "--local", root=tmp_path / "here")
    one = launch("--name", "zoo", "--count", "4", "--nodes", "1")
    until(saved(one))
    with held(*workers()):
        job = slurm("squeue", "-h", "-o", "%A").strip()
        end_soon(slurm, job)
    slurm("scontrol", "update", f"jobid={job}", "TimeLimit=10")
    one.wait(slurm)
    here.wait(slurm)
    equal(one, Zoo.open(here.folder))
    assert "Requeued job" in one.logs and "goes on from epoch" in one.logs, one.logs
