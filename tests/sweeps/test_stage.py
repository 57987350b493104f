"""Whole sweeps on a real Ray: killed drivers, lost nodes, Optuna and ASHA; equal bytes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from dwf import preemption, settings
from dwf.cluster import ray_cluster
from dwf.commands import COMMANDS
from dwf.errors import Preempted, RunConflict, WorkFailed
from dwf.sweeps.config import SweepConfig
from dwf.sweeps.space import read_bases
from dwf.sweeps.stage import run_sweep
from dwf.sweeps.trial import read_records
from dwf.sweeps.trials import list_trials
from dwf.zoo.stage import train_zoo
from tests.sweeps.conftest import WIDTH, write_sweep

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
SPACE = {WIDTH: {"grid": [8, 12, 16]}, "align": {"grid": [True, False]}}
SCRIPTS = ("zoo", "align", "generator", "sample", "evaluate")


@pytest.fixture(scope="module")
def ray(ray_nodes):
    ray_cluster.connect()
    return ray_nodes


@pytest.fixture(scope="module")
def uninterrupted(ray, make, tmp_path_factory):
    root = tmp_path_factory.mktemp("uninterrupted")
    return root, run_sweep(make(SPACE), root, name="sweep")


def timeless(report):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in report.rows]


def results_of(root: Path) -> dict[str, bytes | str]:
    """What stages made: shards, weights of generators, numbers of reports."""
    folder = root / "sweeps" / "sweep"
    files = [*folder.glob("zoos/*/shard-*"), *folder.glob("runs/*/density/*")]
    results = {str(file.relative_to(folder)): file.read_bytes() for file in files}
    for file in folder.glob("reports/*/report.json"):  # its facts tell of seconds, too
        results[str(file.relative_to(folder))] = json.dumps(json.loads(file.read_text())["sets"])
    return results


def wait_for(happened, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def records_of(root: Path) -> dict[Path, tuple[int, bytes]]:
    files = (root / "sweeps" / "sweep" / "trials").glob("?????.json")
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def test_a_sweep_leaves_table_figure_and_settings_that_the_commands_take(uninterrupted):
    root, report = uninterrupted
    folder = root / "sweeps" / "sweep"
    assert [row["state"] for row in report.rows] == ["finished"] * 6
    assert (folder / "table.csv").exists() and (folder / "trials.png").exists()
    (best,) = (row for row in report.rows if row["trial"] == report.best)
    assert best["val_accuracy"] == max(row["val_accuracy"] for row in report.rows)
    for stage in SCRIPTS if best["align"] else set(SCRIPTS) - {"align"}:
        file = folder / "best" / f"{stage}.yaml"
        (command,) = (line for line in file.read_text().splitlines() if "# dwf " in line)
        words = [*command.split()[3:], "--root", str(root / "new"), "--dry-run"]
        COMMANDS[stage].run(words)
    generator = yaml.safe_load((folder / "best" / "generator.yaml").read_text())
    assert generator["density"]["backbone"]["width"] == best[WIDTH]
    assert generator["zoo"] == ("sweep-best-aligned" if best["align"] else "sweep-best")
    assert not (root / "new").exists()


def test_given_again_nothing_is_done_and_another_sweep_is_refused(uninterrupted, make):
    root, report = uninterrupted
    before = records_of(root)
    assert run_sweep(make(SPACE), root, name="sweep") == report
    assert records_of(root) == before
    with pytest.raises(RunConflict, match=r"metric = 'val_accuracy', this one has 'overlap'"):
        run_sweep(make(SPACE, metric="overlap"), root, name="sweep")


def test_a_finished_grid_is_widened_and_narrowed(uninterrupted, make, tmp_path):
    _, whole = uninterrupted
    narrow = make(SPACE, leave_out=[f"{WIDTH}=12", "align=true"])
    first = run_sweep(narrow, tmp_path, name="sweep")
    assert [row[WIDTH] for row in first.rows] == [8, 16]
    before = records_of(tmp_path)
    wider = run_sweep(make(SPACE), tmp_path, name="sweep")
    assert before.items() <= records_of(tmp_path).items()
    numbered = ("trial", "report", "seconds")
    rows, others = (
        sorted(str([v for k, v in row.items() if k not in numbered]) for row in report.rows)
        for report in (wider, whole)
    )
    assert rows == others and [row["trial"] for row in wider.rows] == list(range(6))
    assert run_sweep(narrow, tmp_path, name="sweep") == wider  # nothing is taken away
    with pytest.raises(RunConflict, match=r"space.zoo.seed.grid = None, this one has \[0\]"):
        run_sweep(make(SPACE | {"zoo.seed": {"grid": [0]}}), tmp_path, name="sweep")


def test_a_killed_driver_is_restored_without_repeating_finished_trials(
    uninterrupted, make, tmp_path
):
    file = write_sweep(make(SPACE), tmp_path / "sweep.yaml")
    words = [sys.executable, "launch/sweep.py", "--name", "sweep", "--root", str(tmp_path)]
    own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}  # its Ray dies with it
    with open(tmp_path / "log", "w") as log:
        driver = subprocess.Popen(
            [*words, "--config", str(file)], cwd=ROOT, env=own, stdout=log, stderr=log
        )
    wait_for(lambda: len(records_of(tmp_path)) >= 2 or driver.poll() is not None)
    driver.kill()
    driver.wait()
    killed = records_of(tmp_path)
    assert 2 <= len(killed) < 6, (tmp_path / "log").read_text()
    ran = subprocess.run([*words, "--resume"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "6 of 6 trials" in ran.stderr and "best by val_accuracy" in ran.stdout
    after = records_of(tmp_path)
    assert {path: after[path] for path in killed} == killed
    root, report = uninterrupted
    turned = make(dict(reversed(SPACE.items())))  # the same space: no other sweep
    restored = run_sweep(turned, tmp_path, name="sweep")
    assert timeless(restored) == timeless(report) and restored.best == report.best
    assert results_of(tmp_path) == results_of(root)
    for path in killed:  # each stage of a finished trial was begun once
        names = json.loads(path.read_text())["names"]
        told = tmp_path / "sweeps" / "sweep" / "runs" / names["generator"] / "command.txt"
        assert len(told.read_text().splitlines()) == 1


def test_a_lost_node_loses_no_trial(uninterrupted, ray, make, tmp_path):
    cluster, node = ray
    lost = threading.Event()

    def lose() -> None:
        wait_for(lambda: len(records_of(tmp_path)) >= 1)
        cluster.remove_node(node, allow_graceful=False)
        lost.set()

    thread = threading.Thread(target=lose)
    thread.start()
    report = run_sweep(make(SPACE), tmp_path, name="sweep")
    thread.join()
    assert lost.is_set()
    root, whole = uninterrupted
    assert timeless(report) == timeless(whole)
    assert results_of(tmp_path) == results_of(root)


def test_optuna_and_asha_on_the_shipped_example(ray, tmp_path):
    shipped = yaml.safe_load((ROOT / "configs/sweep/iris_optuna_asha.yaml").read_text())
    small = {"trials": 6, "seed": 1}
    config = settings.build(SweepConfig, shipped | small, source="test")
    first = run_sweep(config, tmp_path, name="sweep")
    states = [row["state"] for row in first.rows]
    assert len(states) == 6 and set(states) == {"finished", "stopped"}
    for row in first.rows:
        assert 1e-4 <= row["generator.density.training.learning_rate"] <= 1e-2
        assert row["generator.density.backbone.hidden"] in (32, 64, 128)
        if row["state"] == "stopped":
            assert row["stopped_at_step"] in (400, 1200) and "test_accuracy" not in row
    # Two trials are lost: what the others found is told to Optuna and ASHA anew.
    folder = tmp_path / "sweeps" / "sweep"
    lost = [folder / "trials" / f"0000{n}.json" for n in (1, 4)]
    points = [json.loads(file.with_suffix(".point.json").read_text()) for file in lost]
    for file in (*lost, folder / "done.json"):
        file.unlink()
    kept = records_of(tmp_path)
    second = run_sweep(config, tmp_path, name="sweep")
    assert kept.items() <= records_of(tmp_path).items() and len(second.rows) == 6
    assert [read_records(folder)[n]["point"] for n in (1, 4)] == points


def test_what_no_setting_can_mend_is_told_after_the_others_are_over(ray, make, tmp_path):
    config = make({"zoo.seed": {"grid": [0, 1]}, "align": {"grid": [False]}})
    damaged, _ = list_trials(config, read_bases(config))
    zoo = train_zoo(damaged.zoo, tmp_path, name="damaged")
    os.truncate(zoo.shards[0].path, 1000)
    with pytest.raises(WorkFailed, match=r"1 of 2 trials(.|\n)*trial 0: .*shard-00000"):
        run_sweep(config, tmp_path, name="sweep")
    assert list(read_records(tmp_path / "sweeps" / "sweep")) == [1]


def test_a_signal_ends_the_sweep_and_it_goes_on_later(ray, make, tmp_path):
    handlers = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    preemption.watch()
    config = make(SPACE)

    def ask() -> None:
        wait_for(lambda: len(records_of(tmp_path)) >= 1)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        with pytest.raises(Preempted):
            run_sweep(config, tmp_path, name="sweep")
    finally:
        thread.join()
        preemption.forget()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    before = records_of(tmp_path)
    assert 1 <= len(before) < 6
    report = run_sweep(config, tmp_path, name="sweep")
    assert len(report.rows) == 6 and before.items() <= records_of(tmp_path).items()
