"""What a launch that leaves its jobs says: a command that exists, and jobs that live."""

import json
import shlex
from pathlib import Path

import pytest

from dwf.cluster import slurm, watch
from dwf.cluster.work import going_on
from dwf.commands import COMMANDS
from tests.cluster.test_local import Work


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("zoos/first", "zoo --resume --name first"),
        ("zoos/mnist/first", "zoo --resume --name mnist/first"),
        ("finetunes/one", "finetune --resume --name one"),
        ("audits/one", "audit --resume --name one"),
        ("runs/labels", "predictor --resume --name labels"),
    ],
)
def test_the_command_that_goes_on_is_that_of_the_folders_kind(
    folder, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert going_on(Path(folder)) == f"dwf {command}"
    assert command.split()[0] in COMMANDS
    monkeypatch.chdir("/")
    assert going_on(tmp_path / folder) == f"dwf {command} --root {shlex.quote(str(tmp_path))}"


@pytest.mark.parametrize("folder", ["zoos/first/measured/robust", "runs/first-measured/robust"])
def test_measurements_are_named_by_their_zoo_too(folder):
    assert going_on(Path(folder)) == "the same command"


@pytest.mark.parametrize(
    ("alive", "named"), [(["7"], "7"), (["9"], "5 7"), ([], "5 7"), (None, "5 7")]
)
def test_jobs_that_ended_are_not_to_be_cancelled(tmp_path, monkeypatch, alive, named):
    """Where none of them is seen, all are named: one may be between two attempts."""
    jobs = tmp_path / "zoos" / "first" / "run" / "jobs"
    jobs.mkdir(parents=True)
    records = [{"job": job, "elements": [[0], [1]]} for job in ("5", "7")]
    (jobs / "submitted.json").write_text(json.dumps(records))
    found = None if alive is None else {(job, 1): slurm.Element("RUNNING", "", "") for job in alive}
    monkeypatch.setattr(slurm, "living", lambda: found)
    said = watch._look_again(Work(tmp_path / "zoos" / "first"))
    assert said.endswith(f"end them with: scancel {named}")
