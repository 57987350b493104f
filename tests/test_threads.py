"""Threads: those that wait sleep, and a run computes on as many as it was begun with.

The answers are what torch's own OpenMP library says of itself, and the bytes of a fit that was
killed on two threads and resumed by a process that may use one core.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from dwf.generators.config import GeneratorConfig
from dwf.generators.generator import Generator
from dwf.generators.stage import fit_generator
from dwf.plain import Json
from dwf.randomness import threads
from dwf.run_folder import RunFolder
from dwf.settings import build, to_dict
from dwf.stages import Product, Work, run_here, stage

ROOT = Path(__file__).parent.parent
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
VARIABLES += ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # torch heeds both


def environment(**given: str) -> dict[str, str]:
    """This process's, of a user who has said nothing but what is given."""
    bare = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return bare | {"PYTHONPATH": str(ROOT)} | given


def python(script: str, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=environment(**given),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.mark.parametrize(
    ("given", "policy", "spins"),
    [
        ({}, "PASSIVE", "'1800'"),
        ({"OMP_WAIT_POLICY": "active"}, "ACTIVE", "'30000000000'"),
        ({"OMP_WAIT_POLICY": "passive"}, "PASSIVE", "'0'"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE", "'7'"),
    ],
)
def test_torchs_own_library_waits_as_dwf_or_the_user_says(given, policy, spins):
    """`OMP_DISPLAY_ENV` lets the library print its settings when it is loaded."""
    script = "import dwf.run_folder, torch"
    told = python(script, OMP_DISPLAY_ENV="verbose", **given).stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in told and f"GOMP_SPINCOUNT = {spins}" in told


FIT = """
import os, sys, time
from pathlib import Path
import yaml
if sys.argv[2] == "one core":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from dwf.generators.config import GeneratorConfig
from dwf.generators.stage import fit_generator
from dwf.settings import build
from dwf.training import loop
import torch
print(torch.get_num_threads(), flush=True)
update = loop._Loop._update
def slow(self):
    time.sleep(0.1)
    update(self)
loop._Loop._update = slow
root = Path(sys.argv[1])
config = build(GeneratorConfig, yaml.safe_load((root / "config.yaml").read_text()), source="config")
fit_generator(config, root, name="killed")
"""


def test_a_run_resumed_where_other_cores_are_free_is_bitwise_equal(make_zoo, tmp_path):
    """Wide layers, so that two threads share a product, and add in another order than one."""
    make_zoo(count=64, widths=(64, 32, 10))
    training = {"steps": 16, "batch_size": 32, "validate_every": 8}
    training["compute"] = {"device": "cpu", "save_seconds": 0.0}
    backbone = {"kind": "mlp", "hidden": 256}
    density = {"kind": "flow", "training": training, "backbone": backbone}
    told: Json = {"zoo": "small", "codec": {"kind": "pca", "components": 20}, "density": density}
    config = build(GeneratorConfig, told, source="test")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
    folder = tmp_path / "runs" / "killed"
    words = [sys.executable, "-c", FIT, str(tmp_path)]
    child = subprocess.Popen(
        [*words, "all"], env=environment(OMP_NUM_THREADS="2"), stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob("checkpoints/step-0000000[4-9].pt")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (folder / "done.json").exists()
    resumed = python(FIT, str(tmp_path), "one core")
    assert resumed.stdout.split() == ["1"], "the resumed process had one core, and so one thread"
    assert json.loads((folder / "training.json").read_text())["threads"] == 2
    assert json.loads((folder / "environment.json").read_text())["threads"] == 2
    with threads(2):
        fit_generator(config, tmp_path, name="straight")
    samples = [
        Generator.load(tmp_path / "runs" / name).sample(9, seed=1)
        for name in ("killed", "straight")
    ]
    assert torch.equal(*samples)


def kept(folder: Path, ranks: int = 1) -> int | None:
    run = RunFolder(folder, {})
    run.keep_threads(ranks)
    return run.threads


def test_the_count_of_the_beginning_is_kept_and_of_other_ranks_taken_anew(tmp_path, caplog):
    caplog.set_level("INFO")
    with threads(3):
        assert kept(tmp_path) == 3
    (tmp_path / "metrics.jsonl").touch()  # something came of it
    assert kept(tmp_path) == 3
    assert "computes on 3 threads, as it was begun; 1 would be free" in caplog.text
    assert kept(tmp_path, ranks=4) == torch.get_num_threads() == 1
    assert kept(tmp_path, ranks=4) == 1


def test_a_stage_computes_on_the_recorded_count_and_leaves_the_processs(tmp_path):
    product = Product("generator")
    with threads(2), stage(product, tmp_path, config={"a": 1}) as run:
        run.metrics_path.touch()
    with stage(product, tmp_path, config={"a": 1}):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
    with stage(product, tmp_path / "units", config={"a": 1}, has_workers=True):
        assert torch.get_num_threads() == 1


def test_units_compute_on_one_thread_here_as_in_workers(tmp_path):
    seen: list[int] = []
    work = Work(
        folder=tmp_path,
        count=2,
        unit=lambda folder, index: seen.append(torch.get_num_threads()),
        finished=lambda folder: set(),
        progress=lambda folder: (0.0, ""),
        what="units",
        size=2,
        unit_name="units",
    )
    with threads(2):
        run_here(work)
    assert seen == [1, 1]
