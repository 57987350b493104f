"""The sbatch files of slurm/ on a real Slurm: each gives the bytes of the same work done here."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.settings import load
from dwf.zoo import stage
from dwf.zoo.config import ZooConfig
from tests.signals import facts_of, wait_for

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
ZOO = {
    "network": {"kind": "mlp", "widths": [64, 8, 10]},
    "data": {"kind": "digits", "validation": 0.2},
    "count": 40,
    "recipe": {"epochs": 60, "batch_size": 64, "learning_rate": 0.01},
    "split": {"val": 0.15, "test": 0.15},
    "keep_epochs": [0, 60],
    "cohort": 5,
    "shard": 10,
}
ALIGN = {"reference": "iterated_mean", "num_pairs": 8}
FLOW = {
    "zoo": "filled by the pipeline",
    "codec": {"kind": "pca"},
    "density": {
        "kind": "flow",
        "backbone": {"kind": "residual_mlp", "width": 32, "depth": 1},
        "training": {"steps": 50, "batch_size": 16, "warm_up": 10, "validate_every": 50},
        "solver": {"method": "heun2", "steps": 4},
    },
}


def write(folder: Path, name: str, data: dict) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(data))
    return str(file)


def files_of(root: Path, pattern: str) -> dict[str, bytes]:
    found = sorted(root.glob(pattern))
    return {file.name: file.read_bytes() for file in found if file.is_file()}


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """The root of a zoo and of its alignment, made in this process."""
    root = tmp_path_factory.mktemp("here")
    stage.train_zoo(load(ZooConfig, write(root, "zoo", data=ZOO)), root, name="zoo")
    config = load(AlignConfig, write(root, "align", data=ALIGN | {"zoo": "zoo"}))
    align_zoo(config, root, name="zoo-aligned")
    return root


@pytest.fixture
def submit(slurm, tmp_path, monkeypatch):
    """Give a script of slurm/ to sbatch: `submit("--nodes", "2", "zoo.sh", ...) -> job`."""
    path = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("RAY_ADDRESS", "SBATCH_EXCLUSIVE", "SBATCH_TIMELIMIT"):
        monkeypatch.delenv(name, raising=False)

    def give(*words: str) -> str:
        words = tuple(str(ROOT / "slurm" / w) if w.endswith(".sh") else w for w in words)
        where = ("--chdir", str(ROOT), "--output", str(tmp_path / "%x-%j.out"))
        job = slurm("sbatch", "--parsable", *where, *words, "--root", str(tmp_path)).strip()
        jobs.append(job)
        return job

    jobs: list[str] = []
    yield give
    slurm("scancel", *jobs, check=False)


def finish(slurm, job: str, folder: Path) -> tuple[dict[str, str], str]:
    """Wait for a job's end; where it was requeued, let it begin again soon."""

    def ended() -> bool:
        facts = facts_of(slurm, job)
        if facts["JobState"] == "PENDING" and facts["Reason"] == "BeginTime":
            time.sleep(3)  # till the end of its first attempt is told, not taken for the second's
            slurm("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)
        return facts["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")

    wait_for(ended, f"the end of job {job}")
    facts = facts_of(slurm, job)
    log = "".join(file.read_text() for file in sorted(folder.glob(f"*-{job}*.out")))
    attempts = slurm("sacct", "-D", "-j", job, "-o", "jobid,state,exitcode,start,end")
    assert facts["JobState"] == "COMPLETED", log + attempts
    return facts, log


def test_zoo_over_two_nodes_is_saved_and_requeued_at_the_time_limit(slurm, submit, here, tmp_path):
    """Ray on both nodes; the signal is what Slurm sends before the limit, to the batch script."""
    longer = {"recipe": ZOO["recipe"] | {"epochs": 240}, "keep_epochs": [0, 240]}
    file = write(
        tmp_path, "longer", data=ZOO | longer
    )  # not over before the signal has come through
    left_before = set(Path("/tmp").glob("r[0-9]*.*"))
    flags = ("--nodes", "2", "--cpus-per-task", "1", "--gpus-per-node", "1")
    job = submit(*flags, "zoo.sh", "--config", file, "--name", "zoo")
    flags, config = ("--nodes", "1", "--cpus-per-task", "1"), str(here / "zoo.yaml")
    alone = submit(*flags, "zoo.sh", "--config", config, "--name", "one")
    words = [sys.executable, "launch/zoo.py", "--local", "--config", file, "--name", "zoo"]
    there = tmp_path / "there"
    uninterrupted = subprocess.Popen([*words, "--root", str(there)], cwd=ROOT)
    work = tmp_path / "zoos" / "zoo" / "run" / "work"
    wait_for(lambda: bool(list(work.glob("cohort-*-epoch-00000.npz"))), "the first cohort")
    slurm("scancel", "--batch", "--signal", "USR2", job)
    wait_for(lambda: facts_of(slurm, job)["JobState"] != "RUNNING", "the requeue")
    assert list(work.glob("cohort-*.pt")), "nothing was saved"
    facts, log = finish(slurm, job, folder=tmp_path)
    assert facts["Restarts"] == "1" and f"saved; job {job} goes back into the queue" in log
    assert "begun 0 times before\n" in log and "begun 1 times before" in log
    assert set(re.findall(r"^(\d): .*Ray runtime started", log, re.MULTILINE)) == {"0", "1"}
    finish(slurm, alone, folder=tmp_path)
    assert uninterrupted.wait(300) == 0
    assert files_of(tmp_path, "zoos/zoo/*.*") == files_of(there, "zoos/zoo/*.*")
    assert files_of(tmp_path, "zoos/one/*.*") == files_of(here, "zoos/zoo/*.*")
    left = set(Path("/tmp").glob(f"r{job}.*")) - left_before
    assert not left, "Ray left its folder behind"


def test_align_on_the_ranks_of_two_nodes(slurm, submit, here, tmp_path):
    (tmp_path / "zoos").mkdir()
    (tmp_path / "zoos" / "zoo").symlink_to(here / "zoos" / "zoo")
    flags = ("--nodes", "2", "--ntasks-per-node", "2")
    job = submit(*flags, "align.sh", "--config", str(here / "align.yaml"), "--name", "zoo-aligned")
    finish(slurm, job, folder=tmp_path)
    assert files_of(tmp_path, "zoos/zoo-aligned/*.*") == files_of(here, "zoos/zoo-aligned/*.*")


def test_a_preempted_pipeline_goes_on(slurm, submit, tmp_path):
    """A job of another partition takes all nodes while the zoo is trained."""
    config = {
        "zoo": write(tmp_path, "zoo", data=ZOO),
        "align": write(tmp_path, "align", data=ALIGN),
        "generators": [write(tmp_path, "flow", data=FLOW)],
        "sample": write(tmp_path, "sample", data={"count": 12}),
        "evaluate": write(tmp_path, "evaluate", data={"count": 12}),
    }
    file = write(tmp_path, "way", data=config)
    job = submit("--partition", "low", "--cpus-per-task", "2", "pipeline.sh", "--config", file)
    there = tmp_path / "there"
    words = [sys.executable, "launch/pipeline.py", "--config", file, "--root", str(there)]
    uninterrupted = subprocess.Popen(words, cwd=ROOT)
    work = tmp_path / "zoos" / "way" / "run" / "work"
    wait_for(lambda: bool(list(work.glob("cohort-*-epoch-00000.npz"))), "the first cohort")
    slurm("srun", "--nodes", "4", "--exclusive", "--partition", "main", "true")
    facts, log = finish(slurm, job, folder=tmp_path)
    assert facts["Restarts"] == "1" and "report.html" in log
    assert uninterrupted.wait(300) == 0
    for zoo in ("way", "way-aligned", "way-flow-samples"):
        expected = files_of(there, f"zoos/{zoo}/*.*")
        assert len(expected) > 2
        assert files_of(tmp_path, f"zoos/{zoo}/*.*") == expected, zoo


def test_several_pipelines_are_one_job_and_one_summary(submit, slurm, here, tmp_path):
    """Of zoos that are there already, under two seeds."""
    parts = {"sample": write(tmp_path, "sample", data={"count": 4}), "seeds": 2}
    parts |= {"generators": [write(tmp_path, "flow", data=FLOW)]}
    parts |= {"evaluate": write(tmp_path, "evaluate", data={"count": 2, "averages": [2]})}
    (tmp_path / "zoos").mkdir(exist_ok=True)
    for name in ("first", "second"):
        (tmp_path / "zoos" / name).symlink_to(here / "zoos" / "zoo")
    files = [write(tmp_path, name, data=parts) for name in ("first", "second")]
    finish(slurm, submit("pipeline.sh", "--config", *files), folder=tmp_path)
    text = (tmp_path / "reports" / "summary.md").read_text()
    for name in ("first", "second"):
        assert f"| {name} | finished |" in text
        assert f"| {name} | {name} | flow over principal components, mean over 2 seeds |" in text


def test_the_sites_file_is_understood_by_sbatch(slurm):
    """It asks for whole nodes: all 64 cores of each."""
    asked = "source slurm/site.sh && sbatch --test-only --nodes 2 slurm/zoo.sh 2>&1"
    assert "using 128 processors on nodes" in slurm("bash", "-c", f"cd {ROOT} && {asked}")


def test_without_sbatch_it_says_how():
    environment = {k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"}
    words = ["bash", "slurm/zoo.sh"]
    ran = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode and "give this file to sbatch, as slurm/site.sh tells" in ran.stderr
