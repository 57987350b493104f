"""A launch from within a job of Slurm: what of that job reaches `sbatch`, and what an error tells.

Expected: Slurm's own lists of the variables that it sets in a job and that its clients read.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from dwf.cluster import ranked, slurm, submit
from dwf.cluster.config import SiteConfig
from dwf.cluster.element import jobs_folder
from dwf.cluster.ranked import RankedJob
from dwf.cluster.watch import failures
from dwf.errors import ConfigError
from dwf.flags import words_naming
from tests.cluster.test_local import Work

OF_THE_JOB = (
    *("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_NAME", "SLURM_STEP_ID", "SLURM_NTASKS"),
    *("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE"),
    *("SLURM_TRES_PER_TASK", "SLURM_NNODES", "SLURM_PROCID", "SLURMD_NODENAME", "PMI_RANK"),
    *("PMI_FD", "PMIX_NAMESPACE", "PMIX_RANK"),
)
STAY = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SBATCH_ACCOUNT", "SBATCH_PARTITION", "PATH")


@pytest.fixture
def in_a_job(tmp_path, monkeypatch):
    """An `sbatch` that keeps its environment; this process is in a job."""
    seen = tmp_path / "seen.json"
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    lines = ("#!/bin/sh", f"env -0 > {seen}", "echo Submitted batch job 7", "exit $SBATCH_FAILS")
    program.write_text("\n".join(lines))
    program.chmod(0o755)
    (program.parent / "srun").symlink_to(program)  # submitit asks whether there is one
    monkeypatch.setattr(slurm, "most_elements", lambda: 1000)  # a real Slurm would not answer
    for name in (*OF_THE_JOB, *STAY[:-1]):
        monkeypatch.setenv(name, "3")
    monkeypatch.setenv("SBATCH_FAILS", "0")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return lambda: {word.partition("=")[0] for word in seen.read_text().split("\0")}


def array_of(tmp_path: Path, units: int = 4, **site) -> submit.Array:
    told = SiteConfig(gpus_per_node=0, cpus_per_node=1, **site)
    return submit.cut_units(Work(tmp_path / "zoo"), range(units), nodes=2, site=told)


def test_an_array_has_nothing_of_the_job_around_it(in_a_job, tmp_path):
    submit.submit(Work(tmp_path / "zoo"), array_of(tmp_path), site=SiteConfig())
    found = in_a_job()
    assert not found.intersection(OF_THE_JOB) and found.issuperset(STAY)
    assert os.environ["SLURM_JOB_ID"] == "3"  # this process is still in it


def test_nor_has_a_job_of_ranks(in_a_job, tmp_path, monkeypatch):
    site = SiteConfig(gpus_per_node=0, cpus_per_node=1)
    ranked._submit(RankedJob(tmp_path / "runs" / "one", 2, site=site))
    found = in_a_job()
    assert not found.intersection(OF_THE_JOB) and found.issuperset({*STAY, "DWF_SETUP"})


def test_a_site_bounds_the_elements_of_an_array(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "most_elements", lambda: 1000)
    assert len(array_of(tmp_path, 100).elements) == 100
    bounded = array_of(tmp_path, 100, array_elements=8)
    assert len(bounded.elements) == 8 and sum(map(len, bounded.elements)) == 100
    assert len(array_of(tmp_path, 3, array_elements=8).elements) == 3


@pytest.mark.parametrize(
    ("said", "names_it"),
    [
        ("Job violates accounting/QOS policy (job submit limit, user's size)", True),
        ("QOSMaxSubmitJobPerUserLimit", True),
        ("Invalid job array specification", True),
        ("Batch job submission failed: invalid account", False),
    ],
)
def test_a_refused_array_names_the_setting(tmp_path, said, names_it):
    assert ("array_elements: N" in submit._cure(said, array_of(tmp_path))) is names_it
    assert not submit._cure(said, array_of(tmp_path, 1))


def test_what_a_lost_element_said_last_stands_in_the_error(tmp_path, monkeypatch):
    work = Work(tmp_path / "zoo")
    jobs = jobs_folder(work.folder)
    jobs.mkdir(parents=True)
    every = list(range(work.count))
    (jobs / submit.RECORD).write_text(json.dumps([{"job": "7", "elements": [every]}]))
    said = "lost: \x1b[31mno GPU\n\n"
    (jobs / "7_0_log.err").write_text("x" * 10_000 + "\n" + said)
    monkeypatch.setattr(slurm, "ends", lambda keys: {key: ("FAILED", "n1") for key in keys})
    assert {why for why, _ in failures(work).values()} == {
        f"its job 7_0 is FAILED (node n1, log {jobs / '7_0_log.err'}): lost: [31mno GPU"
    }


def test_patterns_of_slurm_in_a_path_are_refused(tmp_path):
    site = SiteConfig(gpus_per_node=0, cpus_per_node=1)
    with pytest.raises(ConfigError, match="%"):
        submit.cut_units(Work(tmp_path / "100%j"), range(4), nodes=2, site=site)
    with pytest.raises(ConfigError, match="%"):
        RankedJob(tmp_path / "runs" / "%j", 2, site=site).command()


def test_hints_find_nested_names_and_other_roots(tmp_path, monkeypatch):
    folder = tmp_path / "my zoos" / "zoos" / "a" / "b c"
    words = words_naming(folder, "zoos")
    told = subprocess.run(["sh", "-c", f"printf '%s\n' {words}"], capture_output=True, text=True)
    assert told.stdout.splitlines() == ["--name", "a/b c", "--root", str(tmp_path / "my zoos")]
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "my zoos")
    assert words_naming(Path("zoos/a"), "zoos") == "--name a"
    job = RankedJob(tmp_path / "runs" / "a" / "b", 1, site=SiteConfig())
    assert job.arguments == ["--resume", "--name", "a/b", "--root", str(tmp_path)]
