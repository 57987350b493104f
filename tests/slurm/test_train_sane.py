"""slurm/train_sane.sh and `--nodes` on a real Slurm: ranks on several nodes, by gloo."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dwf.metrics import read_metrics
from tests.signals import end_soon, facts_of, held, wait_for
from tests.slurm.nodes import begin_again, flags_of, rank_of, root, root_of  # noqa: F401
from tests.slurm.test_scripts import ROOT, finish, submit  # noqa: F401

pytestmark = pytest.mark.cluster  # and of DeepSpeed: marked once, run once

SANE = {
    "zoo": "zoo",
    "gate": None,  # so few steps pass none
    "codec": {
        "kind": "sane",
        "window": 16,
        "halo": 4,
        "backbone": {"width": 32, "heads": 2, "depth": 1, "latent": 16, "positions": "sinusoidal"},
        "training": {
            "steps": 600,
            "batch_size": 8,
            "learning_rate": 0.002,
            "validate_every": 30,
            "compute": {"device": "cpu", "kernel": "torch"},
        },
    },
    "density": {"kind": "kde"},
}
# What a line of the metrics says of time and memory; all else is the run's own.
TIMELY = re.compile(r"/s$|seconds|data_wait|memory|mfu", re.IGNORECASE)


@pytest.fixture
def at(root, tmp_path) -> Path:  # noqa: F811
    return root_of(tmp_path, root, name="sane", settings=SANE)


def curve(run: Path) -> list[dict]:
    """The lines of a codec's metrics, without what two equal runs differ in."""
    lines = read_metrics(run / "codec" / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not TIMELY.search(k)} for line in lines]


def steps_of(run: Path) -> int:
    file = run / "codec" / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return len(lines)


def further_than(run: Path, lines: int) -> Callable[[], bool]:
    return lambda: steps_of(run) > lines


def test_four_nodes_preempted_then_out_of_time_give_the_curve_of_an_undisturbed_run(
    slurm,
    submit,  # noqa: F811
    at,
):
    """A job of another partition takes the nodes; then the time limit comes."""
    flags = flags_of(4, "train_sane.sh", settings=at / "sane.yaml")
    alone = submit(*flags, "--name", "undisturbed")
    whole, run = (at / "runs" / name for name in ("undisturbed", "sane"))
    finish(slurm, alone, folder=at)

    job = submit("--partition", "low", "--signal", "B:USR2@60", *flags)
    wait_for(further_than(run, 2), "the first steps")
    slurm("srun", "--nodes", "4", "--exclusive", "--partition", "main", "true")
    wait_for(lambda: facts_of(slurm, job)["Restarts"] == "1", "the first requeue")
    lines = steps_of(run)
    assert 2 < lines < len(curve(whole))
    begin_again(slurm, job)
    wait_for(further_than(run, lines), "more steps")
    with held(rank_of(job, 0)):
        end_soon(slurm, job)
    wait_for(lambda: facts_of(slurm, job)["Restarts"] == "2", "the second requeue")
    slurm("scontrol", "update", f"jobid={job}", "TimeLimit=60")
    assert steps_of(run) < len(curve(whole)), "it was done before its time was up"
    _, log = finish(slurm, job, folder=at)

    assert log.count(f"saved; job {job} goes back into the queue") == 2, log
    assert curve(run) == curve(whole)
    assert {"step", "train_loss", "val_loss"} <= curve(run)[0].keys()
    same_codec(whole, run)
    reconstructs(run, at)
    assert (at / "reports" / "sane-reconstruction" / "report.html").exists()


def same_codec(one: Path, other: Path) -> None:
    for name in ("codec.npz", "codec.safetensors"):
        assert (one / "codec" / name).read_bytes() == (other / "codec" / name).read_bytes(), name


def reconstructs(run: Path, at: Path) -> None:
    """In a process without DeepSpeed: networks come back nearer than their mean is."""
    program = """
import sys, torch
from pathlib import Path
from dwf.generators.generator import Generator
from dwf.generators.round_trip import round_trip_error
from dwf.zoo.store import Zoo
zoo = Zoo.open(Path(sys.argv[2]))
generator = Generator.load(Path(sys.argv[1]))
error = round_trip_error(generator.codec, [(zoo, zoo.rows("test"))])
assert "deepspeed" not in sys.modules
print(error["relative"])
"""
    words = [sys.executable, "-c", program, str(run), str(at / "zoos" / "zoo")]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert 0 < float(ran.stdout) < 1, ran.stdout


def test_a_launch_on_two_nodes_watches_names_a_dead_rank_and_goes_on(slurm, at):
    """Submitted, attached to, a rank killed: both launches say so; given again it goes on."""
    words = ["launch/generator.py", "--config", "sane.yaml", "--codec.training.steps", "600"]
    words += ["--codec.training.compute.save-seconds", "1", "--nodes", "2"]
    first = Launch(at, *words)
    run = at / "runs" / "sane"
    saved = run / "codec" / "checkpoints"
    wait_for(lambda: steps_of(run) and [*saved.glob("step-????????")], "the first steps")
    (job,) = set(re.findall(r"submitted job (\d+)", first.text))
    rank = rank_of(job, 1)
    os.kill(rank, signal.SIGSTOP)  # all ranks wait, so that the job lives until it is looked at
    second, here = Launch(at, *words), Launch(at, *words[:-2])
    wait_for(lambda: "attached to what runs already: job" in second.text, "the second launch")
    assert f"worked on by Slurm job {job}" in here.end(2)
    began = time.monotonic()
    os.kill(rank, signal.SIGKILL)
    for launch in (first, second):
        said = launch.end(2)
        assert re.search(rf"error: job {job} is FAILED \(nodes .*jobs/{job}.out", said), said
        assert re.search(r"srun: error: \S+: task 1: Killed", said), said
    assert time.monotonic() - began < 120
    assert re.search(rf"job {job}: running on .*, codec: step \d+ of 600, train_loss", second.text)
    assert len(re.findall(r"submitted job", first.text + second.text)) == 1

    again = Launch(at, *words)
    assert "generator in runs/sane" in again.end(0)
    assert again.text.count("submitted job") == 1
    log = (run / "jobs" / f"{int(job) + 1}.out").read_text()
    assert "goes on after step" in log, log
    assert "is finished already" in Launch(at, *words, "--no-wait").end(0)
    reconstructs(run, at)


class Launch:
    """A command of launch/ in a process of its own, given from a folder."""

    def __init__(self, folder: Path, *words: str):
        self.log = folder / f"launch-{len(list(folder.glob('launch-*')))}.log"
        site = folder / "site.yaml"
        told = {"gpus_per_node": 0, "cpus_per_node": 1, "time": "30"}
        site.write_text(yaml.safe_dump(told))
        environment = os.environ | {"DWF_CLUSTER": str(site), "OMP_NUM_THREADS": "1"}
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / words[0]), *words[1:]],
                cwd=folder,
                stdout=file,
                stderr=file,
                env=environment,
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def end(self, code: int) -> str:
        """Wait for its end with an exit code; return what it said."""
        assert self.process.wait(300) == code, self.text
        return self.text
