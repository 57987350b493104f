"""One job of ranks: what is submitted, watched, refused; Slurm is played by lists."""

import json
import os
import shlex
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dwf import preemption
from dwf.cluster import ranked, slurm
from dwf.cluster.config import RankedLaunch, SiteConfig
from dwf.cluster.ranked import RankedJob, job_of, progress
from dwf.cluster.slurm import Element
from dwf.errors import ConfigError, RunConflict, StillRunning, WorkFailed
from dwf.settings import Parsed, parse

SITE = SiteConfig(
    partition="gpu",
    account="me",
    qos="low",
    constraint="h100",
    gpus_per_node=4,
    cpus_per_node=96,
    memory_gb=500,
    time="1-00:00:00",
    signal_seconds=180,
    setup=("module load cuda",),
    scratch=Path("/scratch/a b"),
    sbatch={"reservation": "mine"},
)


@dataclass(frozen=True)
class Settings:
    """Stands for a generator's."""

    zoo: str = "small"
    seed: int = 0


def words_of(job: RankedJob) -> dict[str, str]:
    """The options of sbatch, and `script`: what stands behind them."""
    words = list(map(str, job.command()))
    at = words.index(ranked.SCRIPT)
    options = dict(word.lstrip("-").partition("=")[::2] for word in words[1:at])
    return options | {"script": shlex.join(words[at:])}


def test_a_job_asks_for_what_the_site_says_and_one_rank_for_each_gpu(tmp_path):
    options = words_of(RankedJob(tmp_path / "runs" / "one", 3, site=SITE))
    folder = Path(ranked.__file__).parents[2]
    assert options == {
        "parsable": "",
        "nodes": "3",
        "ntasks-per-node": "4",
        "cpus-per-task": "24",
        "gpus-per-node": "4",
        "mem": f"{500 * 1024}M",
        "partition": "gpu",
        "account": "me",
        "qos": "low",
        "constraint": "h100",
        "time": "1-00:00:00",
        "signal": "B:USR2@180",
        "job-name": "one",
        "output": str(tmp_path / "runs" / "one" / "jobs" / "%j.out"),
        "chdir": str(folder),
        "reservation": "mine",
        "script": f"slurm/generator.sh --resume --name one --root {tmp_path}",
    }
    assert (folder / "slurm" / "generator.sh").exists()


@pytest.mark.parametrize(
    ("site", "ranks", "cores"),
    [
        ({"gpus_per_node": 0, "cpus_per_node": 64}, 1, "64"),
        ({"gpus_per_node": 8, "cpus_per_node": 4}, 8, "1"),
        ({"cpus_per_node": 64, "sbatch": {"ntasks-per-node": "4"}}, 4, "16"),
    ],
)
def test_ranks_and_cores_of_a_node(tmp_path, site, ranks, cores):
    job = RankedJob(tmp_path / "one", 2, site=SiteConfig(**site))
    options = words_of(job)
    assert (options["ntasks-per-node"], options["cpus-per-task"]) == (str(ranks), cores)
    assert job.ranks == 2 * ranks and "mem" not in options and "account" not in options


def parsed_of(root: Path, **flags) -> Parsed:
    launch = RankedLaunch(Path("configs/generator/some.yaml"), root=root, **flags)
    return Parsed(Settings(), launch, origins={})


def test_a_job_is_told_its_run_folder_alone_and_places_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "complete", lambda site: site)
    flags = {"nodes": 2, "partition": "low", "time": "30", "engine": "ddp", "wait": False}
    job = job_of(parsed_of(Path(), gpus_per_node=0, **flags))
    assert shlex.join(job.arguments) == f"--resume --name some --root {tmp_path}"
    assert (job.folder, job.nodes, job.wait) == (tmp_path / "runs" / "some", 2, False)
    assert (job.site.partition, job.site.time, job.site.gpus_per_node) == ("low", "30", 0)
    resumed = job_of(parsed_of(tmp_path, nodes=2, name="one", resume=True, engine="ddp"))
    assert shlex.join(resumed.arguments) == f"--resume --name one --root {tmp_path}"
    assert f"their settings from {tmp_path}/runs/one/config.yaml" in resumed.describe()


def test_the_run_folder_has_every_setting_before_the_job_is_submitted(fake, tmp_path, monkeypatch):
    """What the job's own command line then reads is what the launch was told by file and flags."""
    config = tmp_path / "small.yaml"
    config.write_text("zoo: large\n")
    words = ["--config", str(config), "--seed", "3", "--nodes", "2", "--root", str(tmp_path)]
    launched = parse(Settings, str(config), argv=words, flags=RankedLaunch)
    one = RankedJob(tmp_path / "runs" / launched.name, 2, site=SITE)

    def submit(words, **how):
        job = parse(Settings, "any.yaml", argv=words[words.index(ranked.SCRIPT) + 1 :])
        assert job.config == launched.config == Settings("large", 3) and job.name == "small"
        assert job.origins == {"zoo": "file", "seed": "file"}
        return fake.sbatch(words, **how)

    monkeypatch.setattr(ranked.subprocess, "run", submit)
    with pytest.raises(StillRunning):
        ranked.run(replace(one, wait=False), launched.config, is_done=done)
    assert len(fake.submitted) == 1
    before = (
        (one.folder / "environment.json").read_bytes(),
        (one.folder / "command.txt").read_text(),
    )
    with pytest.raises(StillRunning):  # attached: the records stay those of the job's own run
        ranked.run(replace(one, wait=False), launched.config, is_done=done)
    after = (one.folder / "environment.json").read_bytes(), (one.folder / "command.txt").read_text()
    assert before == after


def test_without_nodes_flags_of_slurm_are_refused(tmp_path):
    assert job_of(parsed_of(tmp_path)) is None
    with pytest.raises(ConfigError, match="--partition is about Slurm: add --nodes N"):
        job_of(parsed_of(tmp_path, partition="low"))


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A Slurm in which the jobs of `alive` live, each for so many looks; it numbers them from 7."""

    class Fake:
        def __init__(self):
            self.alive: dict[str, int] = {}
            self.submitted: list[list[str]] = []
            self.environment: dict[str, str] = {}
            self.refuses = ""

        def living(self):
            self.alive = {job: left - 1 for job, left in self.alive.items() if left}
            return {(job, 0): Element("RUNNING", "n[01-02]", why="None") for job in self.alive}

        def sbatch(self, words, env, **_):
            if self.refuses:
                return subprocess.CompletedProcess(words, 1, "", self.refuses)
            number = str(7 + len(self.submitted))
            self.submitted.append(words)
            self.environment = env
            self.alive[number] = 3
            return subprocess.CompletedProcess(words, 0, f"{number};cluster\n", "")

    played = Fake()
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(slurm, "require_slurm", lambda: None)
    monkeypatch.setattr(slurm, "living", played.living)
    monkeypatch.setattr(slurm, "ends", lambda keys: {k: ("FAILED", "n[01-02]") for k in keys})
    monkeypatch.setattr(ranked.subprocess, "run", played.sbatch)
    monkeypatch.setattr(ranked, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr("dwf.source._git", lambda *_: ("", ""))
    return played


def job(tmp_path: Path, **settings) -> RankedJob:
    return RankedJob(tmp_path / "runs" / "one", 2, site=replace(SITE, **settings))


def done(folder: Path) -> bool:
    return (folder / "done.json").exists()


def test_it_is_submitted_once_and_watched_to_its_end(fake, tmp_path, caplog):
    one = job(tmp_path)
    with pytest.raises(StillRunning, match=r"job 7 goes on; look again with: .* --name one --root"):
        ranked.run(replace(one, wait=False), Settings(), is_done=done)
    assert (one.folder / "config.yaml").exists()
    assert fake.environment["DWF_SETUP"].splitlines() == [
        "module load cuda",
        "export TMPDIR='/scratch/a b'",
        'mkdir -p "$TMPDIR"',
    ]
    with pytest.raises(RunConflict, match="holds a run with seed = 0, this one has 1"):
        ranked.run(one, Settings(seed=1), is_done=done)
    (one.folder / "done.json").write_text("{}")
    with caplog.at_level("INFO"):
        ranked.run(one, Settings(), is_done=done)  # attached: the job still lives
        ranked.run(one, Settings(), is_done=done)
    assert len(fake.submitted) == 1 and "is finished already" in caplog.text
    assert "attached to what runs already: job 7" in caplog.text
    assert "job 7: running on n[01-02]" in caplog.text and "job 7 is done" in caplog.text


def test_a_job_that_failed_is_told_with_its_log_and_may_be_given_again(fake, tmp_path):
    one = job(tmp_path)
    jobs = one.folder / "jobs"
    jobs.mkdir(parents=True)
    (jobs / "7.out").write_text(
        "job 7 on n01, begun 0 times before\nerror: earlier\njob 7 on n01, begun 1 times before\n"
        "srun: error: n02: task 1: Killed\nbye\n"
    )
    with pytest.raises(WorkFailed) as told:
        ranked.run(one, Settings(), is_done=done)
    assert f"job 7 is FAILED (nodes n[01-02], log {jobs / '7.out'})" in str(told.value)
    assert "srun: error: n02: task 1: Killed" in str(told.value)
    assert "bye" not in str(told.value) and "earlier" not in str(told.value)
    with pytest.raises(WorkFailed, match="job 8 is FAILED"):
        ranked.run(one, Settings(), is_done=done)
    assert json.loads((jobs / "submitted.json").read_text()) == ["7", "8"]


def test_a_refusal_of_sbatch_is_told(fake, tmp_path):
    fake.refuses = "sbatch: error: invalid partition  specified: gpu\nsbatch: error: it failed\n"
    said = r"sbatch refused the job \(invalid partition specified: gpu; it failed\): mend that in"
    with pytest.raises(ConfigError, match=said):
        ranked.run(job(tmp_path), Settings(), is_done=done)
    fake.refuses = ""
    with pytest.raises(StillRunning):  # the name is free for other settings
        ranked.run(replace(job(tmp_path), wait=False), Settings(seed=1), is_done=done)


def test_a_signal_leaves_the_job_alone(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(preemption, "is_asked", lambda: True)
    with pytest.raises(StillRunning, match=r"scancel 7"):
        ranked.run(job(tmp_path), Settings(), is_done=done)


def test_nothing_is_done_here_while_a_job_has_the_run(fake, tmp_path, monkeypatch):
    one = job(tmp_path)
    ranked.refuse_while_submitted(one.folder)
    with pytest.raises(StillRunning):
        ranked.run(replace(one, wait=False), Settings(), is_done=done)
    with pytest.raises(RunConflict, match="worked on by Slurm job 7: watch it with --nodes"):
        ranked.refuse_while_submitted(one.folder)
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # the job itself
    ranked.refuse_while_submitted(one.folder)
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setattr(slurm, "living", lambda: None)
    with pytest.raises(ConfigError, match=r"`squeue` does not answer here: .* if job 7 is gone"):
        ranked.refuse_while_submitted(one.folder)


def test_progress_is_what_the_newest_metrics_say(tmp_path):
    assert progress(tmp_path) == ""
    codec = tmp_path / "codec"
    codec.mkdir()
    lines = [{"step": 5, "train_loss": 2.0}, {"step": 10, "train_loss": 0.12345, "tokens/s": 51234}]
    (codec / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (codec / "training.json").write_text('{"steps": 40}')
    assert progress(tmp_path) == ", codec: step 10 of 40, train_loss 0.1235, tokens/s 5.123e+04"
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "val_loss": 3.0}\n')
    later = time.time() + 5
    os.utime(tmp_path / "metrics.jsonl", (later, later))
    assert progress(tmp_path) == ", density: step 1, val_loss 3"
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "va')  # being written
    assert progress(tmp_path) == ""


def give_script(tmp_path: Path, *words: str, **slurm_says: str) -> tuple[int, list[str], str]:
    """Run the script with an `srun` that says what it was given: (exit code, words, output)."""
    played = tmp_path / "srun"
    played.write_text('#!/bin/bash\necho "$OMP_NUM_THREADS $DWF_RANKED" "$@" > "$SAID"\n')
    played.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n01", "SAID": f"{tmp_path}/said"}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | slurm_says
    script = ["bash", ranked.SCRIPT, *words]
    folder = Path(ranked.__file__).parents[2]
    ran = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True)
    said = tmp_path / "said"
    given = said.read_text().split() if said.exists() else []
    return ran.returncode, given, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("slurm_says", "ranks", "cores"),
    [
        ({"SLURM_CPUS_ON_NODE": "64"}, 1, 64),
        ({"SLURM_CPUS_ON_NODE": "64", "SLURM_GPUS_ON_NODE": "4"}, 4, 16),
        ({"SLURM_CPUS_ON_NODE": "64", "SLURM_NTASKS_PER_NODE": "8"}, 8, 8),
        (
            {
                "SLURM_CPUS_ON_NODE": "64",
                "SLURM_GPUS_ON_NODE": "4",
                "SLURM_NTASKS_PER_NODE": "2",
                "SLURM_CPUS_PER_TASK": "3",
            },
            2,
            3,
        ),
    ],
)
def test_the_script_starts_a_rank_for_each_gpu(tmp_path, slurm_says, ranks, cores):
    words = ("--config", "c.yaml", "--seed", "1")
    code, given, said = give_script(tmp_path, *words, SLURM_JOB_NUM_NODES="3", **slurm_says)
    assert code == 0, said
    at = given.index("python")
    assert given[:2] == [str(cores), "yes"]
    options = {f"--ntasks-per-node={ranks}", f"--ntasks={3 * ranks}", "--kill-on-bad-exit=1"}
    assert options | {"--mpi=none"} == set(given[2:at])
    told = "-u -m dwf generator --config c.yaml --seed 1 --root ."
    assert given[at + 1 :] == told.split()


def test_the_script_takes_an_engine_and_what_a_launch_says_of_its_site(tmp_path):
    says = {
        "SLURM_CPUS_ON_NODE": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "DWF_SETUP": "echo one\necho two",
    }
    code, given, said = give_script(tmp_path, "--engine", "ddp", "--root", "r", **says)
    assert code == 0 and "one\ntwo\njob 7 on n01" in said
    assert given[given.index("generator") + 1 :] == ["--engine", "ddp", "--root", "r"]


def test_the_script_refuses_more_ranks_than_cores(tmp_path):
    says = {"SLURM_CPUS_ON_NODE": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NUM_NODES": "1"}
    code, given, said = give_script(tmp_path, **says)
    assert (code, given) == (2, [])
    assert "this job has 2 cores of a node for 4 ranks: give sbatch --ntasks-per-node 4" in said
