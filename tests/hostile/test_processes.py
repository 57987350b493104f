"""Processes that are killed leave no other processes, and files that the next run sweeps."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dwf.datasets.cache import open_or_make
from dwf.evaluation.report.index import write_index
from dwf.run_folder import LEFTOVERS
from dwf.stages import Product, stage
from dwf.summary import Summary
from tests.hostile.launcher import wait_for

ROOT = Path(__file__).parents[2]


def is_over(pid: int) -> bool:
    """Whether a process is gone, or waits for a parent that never asks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_a_launcher_that_is_killed_and_save_before(tmp_path):
    program = (
        "from pathlib import Path; from tests.hostile.launcher import launch; "
        f"launch(Path({str(tmp_path)!r}))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    files = [tmp_path / f"began-{index}" for index in (0, 1)]
    wait_for(lambda: all(file.exists() and file.read_text() for file in files))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    workers = [int(file.read_text()) for file in files]
    assert workers[0] != workers[1]
    wait_for(lambda: all(map(is_over, workers)))
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("has_workers", [False, True])
def test_a_stage_sweeps_what_killed_holders_of_its_folder_left(tmp_path, has_workers):
    """Workers may be at work on what is not a record: that is swept when all are over."""
    folder = tmp_path / "one"
    record, result = folder / "run" / "done.json.partial-01", folder / "a.h5.partial-02"
    record.parent.mkdir(parents=True)
    for file in (record, result):
        file.touch()
    product = Product("zoo", records="run")
    with stage(product, folder, config={"seed": 0}, has_workers=has_workers) as run:
        assert run is not None
        assert not record.exists() and result.exists() == has_workers


def test_a_stage_sweeps_where_killed_ranks_of_its_run_would_have_met(tmp_path):
    own, others = tmp_path / ".one.ranks-0a", tmp_path / ".one-more.ranks-0a"
    for file in (own, own.with_name(f"{own.name}.partial-01"), others):
        file.touch()
    with stage(Product("run"), tmp_path / "one", config={"seed": 0}):
        assert [file for file in tmp_path.iterdir() if file.is_file()] == [others]


def test_files_that_many_commands_write_are_swept_by_their_next_writer(tmp_path):
    folder = tmp_path / "reports"
    own, others = folder / "index.html.partial-01", folder / "summary.csv.partial-01"
    folder.mkdir()
    for file in (own, others):
        file.touch()
    page = write_index(tmp_path)
    assert set(folder.glob(LEFTOVERS)) == {others} and "nothing here yet" in page.read_text()
    Summary(tmp_path, "done").write()
    assert not list(folder.glob(LEFTOVERS)) and (folder / "summary.csv").exists()


def test_the_cache_of_data_is_swept_by_who_fills_it(tmp_path):
    (tmp_path / "x_train.npy.partial-01").touch()
    made = open_or_make(tmp_path, lambda: {"x_train": np.arange(3)})
    assert made["x_train"].tolist() == [0, 1, 2] and not list(tmp_path.glob(LEFTOVERS))
