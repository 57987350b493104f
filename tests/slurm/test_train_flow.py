"""slurm/train_flow.sh on a real Slurm: a flow on ranks of two nodes, against one process."""

from pathlib import Path

import pytest

from dwf.generators.config import GeneratorConfig
from dwf.generators.generator import Generator
from dwf.generators.stage import fit_generator
from dwf.metrics import read_metrics
from dwf.run_folder import load_state
from dwf.settings import load
from tests.signals import end_soon, facts_of, held, wait_for
from tests.slurm.nodes import begin_again, flags_of, rank_of, root, root_of  # noqa: F401
from tests.slurm.test_scripts import finish, submit  # noqa: F401

pytestmark = pytest.mark.cluster  # and of DeepSpeed: marked once, run once

FLOW = {
    "zoo": "zoo",
    "codec": {"kind": "neurons"},
    "density": {
        "kind": "flow",
        "backbone": {"kind": "transformer", "width": 16, "heads": 2, "depth": 1},
        "standardise": "none",
        "training": {
            "steps": 200,
            "batch_size": 8,
            "learning_rate": 0.002,
            "validate_every": 10,
            "compute": {"device": "cpu", "kernel": "torch"},
        },
        "solver": {"method": "rk4", "steps": 4},
    },
}


@pytest.fixture
def at(root, tmp_path) -> Path:  # noqa: F811
    return root_of(tmp_path, root, name="flow", settings=FLOW)


def losses(run, key: str = "train_loss") -> list[float]:
    file = run / "metrics.jsonl"
    return [line[key] for line in read_metrics(file)] if file.exists() else []


def test_two_nodes_fit_the_flow_of_one_process_also_when_their_time_is_over(
    slurm,
    submit,  # noqa: F811
    at,
):
    flags = flags_of(2, "train_flow.sh", settings=at / "flow.yaml")
    alone = submit(*flags, "--name", "undisturbed")
    one = fit_generator(load(GeneratorConfig, at / "flow.yaml"), at, name="one")
    finish(slurm, alone, folder=at)
    runs = at / "runs"
    whole, run = runs / "undisturbed", runs / "flow"
    for key in ("train_loss", "val_loss"):
        assert losses(whole, key) == pytest.approx(losses(runs / "one", key), abs=1e-5)
    assert (whole / "config.yaml").read_text().count("engine: deepspeed") == 1
    assert Generator.load(whole).sample(2, seed=0).sub(one.sample(2, seed=0)).abs().max() < 1e-3

    job = submit("--signal", "B:USR2@60", *flags)
    wait_for(lambda: len(losses(run)) > 1, "the first steps")
    with held(rank_of(job, 0)):
        end_soon(slurm, job)
    wait_for(lambda: facts_of(slurm, job)["Restarts"] == "1", "the requeue")
    assert len(losses(run)) < len(losses(whole)), "it was done before its time was up"
    begin_again(slurm, job)
    slurm("scontrol", "update", f"jobid={job}", "TimeLimit=60")
    finish(slurm, job, folder=at)
    for key in ("train_loss", "val_loss"):
        assert losses(run, key) == losses(whole, key)
    first, second = (load_state(each / "density" / "flow.pt")["module"] for each in (whole, run))
    assert all((first[name] == second[name]).all() for name in first)
