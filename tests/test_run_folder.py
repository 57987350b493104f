"""Run folders: which settings go on, which are refused; files are whole whenever a writer dies."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dwf.errors import CorruptCheckpoint, RunConflict
from dwf.files import reading_arrays
from dwf.run_folder import (
    RunFolder,
    load_state,
    replacing,
    replacing_all,
    write_text,
)


def test_the_same_settings_go_on_and_others_are_refused_by_key(tmp_path):
    settings = {"flow": {"width": 3, "rate": 0.1}, "seed": 0}
    RunFolder(tmp_path / "run", settings)
    run = RunFolder(tmp_path / "run", settings)
    assert run.summary is None
    run.metrics_path.touch()
    with pytest.raises(RunConflict, match=r"flow.width = 3, this one has 4: give another --name"):
        RunFolder(tmp_path / "run", {"flow": {"width": 4, "rate": 0.1}, "seed": 0})
    with pytest.raises(RunConflict, match=r"seed = 0, this one has None"):
        RunFolder(tmp_path / "run", {"flow": {"width": 3, "rate": 0.1}})


def test_a_run_takes_new_values_of_settings_that_are_free(tmp_path):
    run = RunFolder(tmp_path / "run", {"tried": [1, 2], "seed": 0})
    run.metrics_path.touch()
    run.finish(best=1)
    wider = RunFolder(tmp_path / "run", {"tried": [1, 2, 3], "seed": 0}, free=["tried"])
    assert wider.summary == {"best": 1}
    wider.reopen()
    again = RunFolder(tmp_path / "run", {"tried": [1, 2, 3], "seed": 0})
    assert again.summary is None
    with pytest.raises(RunConflict, match=r"tried = \[1, 2, 3\], this one has None"):
        RunFolder(tmp_path / "run", {"seed": 0}, free=["tried"])
    with pytest.raises(RunConflict, match=r"seed = 0, this one has 1"):
        RunFolder(tmp_path / "run", {"tried": [4], "seed": 1}, free=["tried"])
    assert RunFolder(tmp_path / "run", {"tried": [1, 2, 3], "seed": 0}).config == again.config


def test_a_run_from_before_a_setting_was_there_is_refused_by_its_name(tmp_path):
    @dataclass(frozen=True)
    class Config:
        lr: float
        clip: float | None = 1.0

    RunFolder(tmp_path / "run", {"lr": 0.1})
    (tmp_path / "run" / "result").touch()
    with pytest.raises(RunConflict, match=r"run with clip = None, this one has 1.0: give another"):
        RunFolder(tmp_path / "run", Config(0.1))


def test_a_run_that_nothing_came_of_leaves_its_name_free(tmp_path):
    RunFolder(tmp_path / "run", {"components": 99})
    assert RunFolder(tmp_path / "run", {"components": 11}).config == {"components": 11}
    assert "11" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_run_of_a_zoo_is_held_to_its_settings_once_the_zoo_is_there(tmp_path):
    RunFolder(tmp_path / "zoo" / "run", {"count": 3})
    (tmp_path / "zoo" / "zoo.json").touch()
    with pytest.raises(RunConflict, match="count = 3, this one has 4"):
        RunFolder(tmp_path / "zoo" / "run", {"count": 4})


def test_a_full_disk_is_told_with_the_files_name(tmp_path):
    message = r"No space left.*report.md"
    with pytest.raises(OSError, match=message), replacing(tmp_path / "report.md"):
        raise OSError(28, "No space left on device")


def test_a_finished_run_says_so(tmp_path):
    run = RunFolder(tmp_path / "run", {"seed": 0})
    run.finish(loss=0.5)
    assert RunFolder(tmp_path / "run", {"seed": 0}).summary == {"loss": 0.5}
    (run.path / "done.json").write_text('{"loss": 0')
    with pytest.raises(CorruptCheckpoint, match=r"done.json is damaged .*: remove it"):
        RunFolder(tmp_path / "run", {"seed": 0}).summary  # noqa: B018
    recorded = json.loads((run.path / "environment.json").read_text())
    assert recorded["packages"]["torch"] and recorded["python"]
    assert len((run.path / "command.txt").read_text().splitlines()) == 3


def test_a_failed_write_leaves_what_was_there(tmp_path):
    file = tmp_path / "file"
    write_text(file, "before")
    with pytest.raises(RuntimeError), replacing(file) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


def test_many_files_appear_together_or_not_at_all(tmp_path):
    files = [tmp_path / folder / f"{i}.txt" for folder in "ab" for i in range(20)]
    write_text(files[0], "before")
    with pytest.raises(KeyError), replacing_all(files) as partials:
        for partial in partials[:30]:
            partial.write_text("half")
        raise KeyError
    assert [file.read_text() for file in tmp_path.rglob("*.*")] == ["before"]
    with replacing_all(files) as partials:
        for number, partial in enumerate(partials):
            partial.write_text(str(number))
    assert [file.read_text() for file in files] == [str(number) for number in range(40)]
    assert len(list(tmp_path.rglob("*.*"))) == 40


def test_kill_9_while_writing_never_shows_a_half_written_file(tmp_path):
    """A process rewrites a large file for ever; whenever it dies the file is whole."""
    file = tmp_path / "file"
    program = (
        "import itertools, sys; from pathlib import Path; from dwf.run_folder import write_text\n"
        "for i in itertools.count():\n"
        "    write_text(Path(sys.argv[1]), f'{i % 10}' * 3_000_000)\n"
    )
    for pause in (0.02, 0.1, 0.3):
        process = subprocess.Popen([sys.executable, "-c", program, str(file)])
        deadline = time.monotonic() + 20
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        text = file.read_text()
        assert len(text) == 3_000_000 and len(set(text)) == 1


def test_a_part_has_its_own_metrics_and_checkpoints(tmp_path):
    run = RunFolder(tmp_path / "run", {"a": 1})
    part = run.part("codec")
    assert part.path == run.path / "codec" and part.path.is_dir()
    assert part.metrics_path != run.metrics_path and part.checkpoints.parent == part.path
    assert os.listdir(part.path) == []  # the run's own records are enough


class Marker:
    """A pickle that leaves a file where it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_nothing_in_a_file_of_tensors_or_arrays_is_run(tmp_path):
    ran, objects = tmp_path / "ran", np.array([Marker(tmp_path / "ran")], dtype=object)
    torch.save({"weights": Marker(ran)}, tmp_path / "state.pt")
    np.savez(tmp_path / "arrays.npz", network=objects)
    np.save(tmp_path / "array.npy", objects)
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Marker(ran)))

    def read_arrays(path, **how):
        with reading_arrays(path), np.load(path, allow_pickle=False, **how) as held:
            return held["network"]

    reads = {
        "state.pt": load_state,
        "arrays.npz": read_arrays,
        "array.npy": lambda path: read_arrays(path, mmap_mode="c"),
        "bare.npy": read_arrays,
    }
    for name, read in reads.items():
        said = f"{name} is damaged .it holds pickled objects, which would run code and are never"
        with pytest.raises(CorruptCheckpoint, match=said):
            read(tmp_path / name)
    assert not ran.exists()


@pytest.mark.parametrize("keeps", [False, True])
def test_saved_states_of_a_finished_run_are_removed_unless_settings_keep_them(tmp_path, keeps):
    """Those of its parts, too; what no training saved stays, and so does all of a run in work."""
    compute = {"keep_checkpoints": keeps}
    run = RunFolder(tmp_path, {"codec": {"training": {"compute": compute}}})
    states = [run.checkpoints / "step-00000001.pt", tmp_path / "codec/checkpoints/step-00000002/a"]
    other = tmp_path / "align" / "checkpoints" / "matched-00000.npz"
    for file in (*states, other):
        file.parent.mkdir(parents=True)
        file.touch()
    RunFolder(tmp_path, run.config)
    assert all(file.exists() for file in states)
    run.finish(best=1)
    assert [file.exists() for file in states] == [keeps, keeps] and other.exists()
    assert run.checkpoints.exists() == keeps and run.summary == {"best": 1}
