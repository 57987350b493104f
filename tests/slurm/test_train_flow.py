"""slurm/train_flow.sh on a real Slurm: the shipped token flow on four nodes, as on one process."""

from pathlib import Path

import pytest

from dwf.commands import COMMANDS
from dwf.generators.generator import Generator
from dwf.metrics import read_metrics
from dwf.run_folder import load_state
from tests.signals import facts_of, wait_for
from tests.slurm.nodes import begin_again, flags_of, root  # noqa: F401
from tests.slurm.test_scripts import ROOT, finish, submit  # noqa: F401

pytestmark = pytest.mark.cluster  # and of DeepSpeed: marked once, run once

PRESET = "configs/generator/token_flow_resnet20_narrow.yaml"
# The preset on a zoo of MLPs, whose networks are 20 tokens; so its windows are shorter.
NARROW = {
    "zoo": "zoo",
    "density.backbone.width": 16,
    "density.backbone.heads": 2,
    "density.backbone.depth": 2,
    "density.backbone.window": 8,
    "density.training.steps": 200,
    "density.training.batch-size": 8,
    "density.training.validate-every": 10,
    "density.training.compute.device": "cpu",
    "density.training.compute.kernel": "torch",
    "density.solver.steps": 4,
}
FLAGS = tuple(word for name, value in NARROW.items() for word in (f"--{name}", str(value)))


@pytest.fixture
def at(root, tmp_path) -> Path:  # noqa: F811
    (tmp_path / "zoos").mkdir()
    (tmp_path / "zoos" / "zoo").symlink_to(root / "zoos" / "zoo")
    return tmp_path


def losses(run, key: str = "train_loss") -> list[float]:
    file = run / "metrics.jsonl"
    return [line[key] for line in read_metrics(file)] if file.exists() else []


def test_four_nodes_fit_the_flow_of_one_process_also_when_they_are_preempted(
    slurm,
    submit,  # noqa: F811
    at,
):
    flags = (*flags_of(4, "train_flow.sh", settings=PRESET), *FLAGS)
    alone = submit(*flags, "--name", "undisturbed")
    words = ["--config", str(ROOT / PRESET), *FLAGS, "--root", str(at), "--name", "one"]
    COMMANDS["generator"].run(words)
    finish(slurm, alone, folder=at)
    runs = at / "runs"
    whole, run = runs / "undisturbed", runs / "token_flow_resnet20_narrow"
    for key in ("train_loss", "val_loss"):
        assert losses(whole, key) == pytest.approx(losses(runs / "one", key), abs=1e-4)
    assert (whole / "config.yaml").read_text().count("engine: deepspeed") == 1
    one, four = (Generator.load(each).sample(2, seed=0) for each in (runs / "one", whole))
    assert four.sub(one).abs().max() < 1e-3

    job = submit("--partition", "low", "--signal", "B:USR2@60", *flags)
    wait_for(lambda: len(losses(run)) > 1, "the first steps")
    slurm("srun", "--nodes", "4", "--exclusive", "--partition", "main", "true", timeout=300)
    wait_for(lambda: facts_of(slurm, job)["Restarts"] == "1", "the requeue")
    assert len(losses(run)) < len(losses(whole)), "it was done before it was preempted"
    begin_again(slurm, job)
    finish(slurm, job, folder=at)
    for key in ("train_loss", "val_loss"):
        assert losses(run, key) == losses(whole, key)
    first, second = (load_state(each / "density" / "flow.pt")["module"] for each in (whole, run))
    assert all((first[name] == second[name]).all() for name in first)
