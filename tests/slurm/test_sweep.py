"""slurm/sweep.sh on a real Slurm: Ray Tune over two nodes, requeued, equal to trials done here."""

import json
from pathlib import Path

import pytest

from dwf.run_folder import RunFolder, hold
from dwf.sweeps.space import read_bases
from dwf.sweeps.stage import begin_trials
from dwf.sweeps.trial import do_trial, read_records
from dwf.sweeps.trials import list_trials
from tests.signals import facts_of, wait_for
from tests.slurm.test_scripts import finish, submit  # noqa: F401
from tests.sweeps.conftest import WIDTH, make, way, write_sweep  # noqa: F401

pytestmark = pytest.mark.cluster

SPACE = {WIDTH: {"grid": [8, 12, 16, 20]}, "align": {"grid": [True, False]}}


def do_here(config, root: Path) -> Path:
    """The trials one after the other, without Ray."""
    folder, bases = root / "sweeps" / "sweep", read_bases(config)
    RunFolder(folder, config)
    begin_trials(config, bases, folder=folder)
    for trial in list_trials(config, bases):
        do_trial(folder, trial.number, point=trial.point, tell=print)
    return folder


def timeless(folder: Path) -> dict[int, dict]:
    return {n: record | {"seconds": None} for n, record in read_records(folder).items()}


def test_a_sweep_over_two_nodes_goes_on_after_a_requeue(
    slurm,
    submit,  # noqa: F811
    make,  # noqa: F811
    tmp_path,
):
    config = make(SPACE)
    file = write_sweep(config, tmp_path / "sweep.yaml")
    folder = tmp_path / "sweeps" / "sweep"
    words = ("--nodes", "2", "--cpus-per-task", "1", "sweep.sh", "--config", str(file))
    with hold(folder / "locks" / "trial-00007"):  # it waits, or all might be over too soon
        job = submit(*words)
        wait_for(lambda: len(read_records(folder)) >= 1, "the first trial")
        slurm("scancel", "--batch", "--signal", "USR2", job)
        wait_for(lambda: facts_of(slurm, job)["JobState"] != "RUNNING", "the requeue")
    before = {n: json.dumps(record) for n, record in read_records(folder).items()}
    here = do_here(config, tmp_path / "here")  # while the job waits for its turn
    facts, log = finish(slurm, job, folder=tmp_path)
    assert facts["Restarts"] == "1" and "8 of 8 trials" in log, log
    after = {n: json.dumps(record) for n, record in read_records(folder).items()}
    assert 1 <= len(before) < 8 and before.items() <= after.items()
    assert timeless(folder) == timeless(here)
    for shard in here.glob("zoos/*/shard-*"):
        assert (folder / shard.relative_to(here)).read_bytes() == shard.read_bytes()
