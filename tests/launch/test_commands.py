"""Everything shipped is executed: each YAML file by its script, each documented command."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from dwf.commands import COMMANDS
from dwf.zoo.family_config import class_of
from tests.documentation import ROOT, commands, programs

SCRIPTS = {"zoo": [], "align": ["--zoo", "any"], "generator": [], "sample": ["--generator", "any"]}
SCRIPTS |= {"evaluate": ["--zoo", "any"], "pipeline": [], "sweep": []}
SCRIPTS |= {"import": ["--source", "any"], "export": ["--zoo", "any"]}
SCRIPTS |= {"finetune": ["--zoo", "any"], "audit": [], "predictor": []}
SCRIPTS |= {"measure": ["--zoo", "any"]}
OTHERS = ("PipelineConfig", "ExperimentConfig")  # settings that are not called as their script
CONFIGS = sorted(  # a site's file is for all commands: tests/cluster/test_config.py
    path
    for path in (p.relative_to(ROOT) for p in (ROOT / "configs").glob("*/**/*.yaml"))
    if path.parts[1] != "cluster"
)


def run(words: list[str], cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True)


def command_module(name: str) -> ModuleType:
    return importlib.import_module(COMMANDS[name].call.partition(":")[0])


def test_every_config_has_a_script_and_a_header():
    for config in CONFIGS:
        assert config.parts[1] in SCRIPTS, config
        text = (ROOT / config).read_text()
        assert text.startswith("# ") and "launch/" in text.split("\n\n")[0], config


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_config_is_understood_by_its_script(config):
    """In this process, since each script would import torch anew."""
    from dwf import settings

    script = command_module(config.parts[1])
    data = settings.read_yaml(ROOT / config)
    cls = next(
        value
        for name, value in (vars(script) | {"ZooConfig": class_of(data)}).items()
        if name.lower() == f"{config.parts[1]}config" or name in OTHERS
    )
    missing = dict.fromkeys(
        (flag.strip("-") for flag in SCRIPTS[config.parts[1]] if flag.startswith("--")), "any"
    )
    parsed = settings.build(cls, missing | data, source=str(config))
    assert settings.build(cls, settings.to_dict(parsed), source="again") == parsed


@pytest.mark.parametrize(
    "pipeline", sorted(ROOT.glob("configs/pipeline/*.yaml")), ids=lambda p: p.stem
)
def test_a_dry_run_of_the_whole_way_shows_every_command_and_touches_nothing(
    pipeline, tmp_path, capsys
):
    """In this process too."""
    words = ["--config", str(pipeline), "--root", str(tmp_path), "--dry-run"]
    COMMANDS["pipeline"].run(words)
    said = capsys.readouterr().out
    shown = re.findall(r"^\$ dwf (\w+) ", said, re.MULTILINE)
    aligned = ["align"] if "align:" in pipeline.read_text() else []  # steps of one network are not
    assert shown[: 1 + len(aligned)] == ["zoo", *aligned]
    assert {"generator", "evaluate"} <= set(shown) or "predictor" in shown
    assert not list(tmp_path.iterdir())


PUBLISHED_SANE = {
    # The first two as published (arXiv 2406.09997).
    "sane_cnn_cifar10": "202,",
    "sane_resnet18_cifar10": "865,",
    "sane_vit_small_cifar10": "211,",
}


@pytest.mark.parametrize("name", PUBLISHED_SANE)
def test_a_published_training_is_planned_without_its_zoo(name, tmp_path, capsys):
    """Parameters, ZeRO stage and memory of a GPU, and the line for sbatch; on any machine."""
    site = tmp_path / "site.yaml"
    site.write_text("gpus_per_node: 4\ncpus_per_node: 64\ngpu_memory_gb: 80\n")
    words = ["--config", f"configs/generator/{name}.yaml", "--root", str(tmp_path), "--dry-run"]
    COMMANDS["generator"].run([*words, "--nodes", "4", "--cluster", str(site)])
    said = capsys.readouterr().out
    (num,) = re.findall(r"^sane: ([\d,]+) parameters; engine deepspeed .ZeRO stage \d", said, re.M)
    assert num.startswith(PUBLISHED_SANE[name])
    assert "ranks: 16, batch" in said and "fits a GPU of 80 GiB" in said
    parts = re.search(r"weights (\S+), gradients (\S+), optimizer (\S+), activations (\S+), ", said)
    (total,) = re.findall(r"total (\S+), ", said)
    assert sum(map(float, parts.groups())) == pytest.approx(float(total), abs=0.03)
    assert "sbatch --parsable --nodes=4 --ntasks-per-node=4 --cpus-per-task=16 " in said
    line = f"slurm/generator.sh --resume --name {name} --root {tmp_path} --track tensorboard\n"
    assert line in said
    assert said.count("--dry-run") == 0
    assert [file.name for file in tmp_path.iterdir()] == ["site.yaml"], (
        "a dry run touched something"
    )


LARGE_FLOWS = {
    "token_flow_resnet18_cifar10": "318,",
    "token_flow_vit_small_cifar10": "320,",
    "latent_flow_resnet18_cifar10": "312,",
}


@pytest.mark.parametrize("name", LARGE_FLOWS)
def test_a_large_flow_is_planned_without_its_zoo(name, tmp_path, capsys):
    """Parameters, ZeRO stage, memory of a GPU with activations, and steps an hour."""
    site = tmp_path / "site.yaml"
    site.write_text("gpus_per_node: 4\ncpus_per_node: 64\ngpu_memory_gb: 80\n")
    words = ["--config", f"configs/generator/{name}.yaml", "--root", str(tmp_path), "--dry-run"]
    COMMANDS["generator"].run([*words, "--nodes", "4", "--cluster", str(site)])
    _, _, said = capsys.readouterr().out.partition("\nflow: ")
    assert said.startswith(LARGE_FLOWS[name])
    learning, memory, fits, steps, *_ = said.splitlines()
    assert "engine deepspeed (ZeRO stage 2), ranks: 16, batch 32 as 16 x 1 x 2" in learning
    (activations,) = re.findall(r"activations (\S+),", memory)
    assert 3 < float(activations) < 10 and fits == "fits a GPU of 80 GiB"
    assert re.match(r"steps an hour: [\d,]+ at 40% of 989 TFLOP/s a GPU", steps)


# Shown whole by the test of pipelines.
WHOLE_WAYS = {
    f"python launch/pipeline.py --config {path.relative_to(ROOT)}"
    for path in ROOT.glob("configs/pipeline/*.yaml")
}


@pytest.mark.parametrize("command", [each for each in commands() if each not in WHOLE_WAYS])
def test_every_documented_command_runs_dry(command, tmp_path, capsys):
    """In this process, since each command would import torch anew."""
    script, *words = shlex.split(command)[1:]
    COMMANDS[Path(script).stem].run([*words, "--dry-run", "--root", str(tmp_path)])
    assert capsys.readouterr().out
    assert not list(tmp_path.iterdir()), "a dry run touched something"


OF_SCRIPT = [
    pytest.param(script, marks=() if script == "zoo" else pytest.mark.slow) for script in SCRIPTS
]


@pytest.mark.parametrize("script", OF_SCRIPT)
def test_the_first_documented_command_of_each_script_runs_by_itself(script, tmp_path):
    command = next(each for each in commands() if f"launch/{script}.py" in each)
    ran = run([*shlex.split(command)[1:], "--dry-run", "--root", str(tmp_path)])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory):
    """A folder as a reader's, who gives the examples one after the other: they share a zoo."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


@pytest.mark.parametrize("program", programs().values(), ids=programs())
def test_every_documented_python_example_runs(program, readers_folder, monkeypatch):
    """What the examples have in common is held to what it must be."""
    monkeypatch.chdir(readers_folder)
    names: dict = {}
    exec(program, names)
    assert len(names["zoo"].rows(split="train", epoch="last")) == 100
    assert names["weights_ND"].shape[1] == 131
    if "state" in names:
        assert names["weights_ND"].shape == (100, 131)
        assert names["state"]["layers.0.weight"].shape == (100, 16, 4)
        assert np.shares_memory(names["state"]["layers.1.bias"], names["weights_ND"])
    if "report" in names:
        assert (readers_folder / "reports" / names["report"].name / "report.html").exists()
        assert [one.n for one in names["report"].of("samples")] == [32]
    if "network" in names:
        state = names["network"].state_dict()
        assert sum(tensor.numel() for tensor in state.values()) == 131
    if "accuracies" in names:
        drawn = names["report"].of("samples")[0]
        assert names["accuracies"][drawn.title] == pytest.approx(drawn.accuracy["mean"])


def test_the_readme_has_all_stages_in_15_lines():
    program = programs()["README.md-0"]
    assert len([line for line in program.splitlines() if line.strip()]) <= 15
    stages = ("train_zoo", "align_zoo", "fit_generator", "sample_networks", "evaluate")
    assert all(f"dwf.{stage}(" in program for stage in stages)


def test_a_users_mistake_is_one_line(tmp_path):
    ran = run(["launch/zoo.py", "--count", "0", "--root", str(tmp_path)])
    assert ran.returncode == 2
    assert ran.stderr.strip() == "error: command line: count = 0: allowed is at least 1"
    ran = run(["launch/zoo.py", "--config", "configs/zoo/mnist_mpl.yaml"])
    assert ran.returncode == 2 and "did you mean 'configs/zoo/mnist_mlp.yaml'" in ran.stderr
    ran = run(["launch/align.py", "--zoo", "nowhere", "--root", str(tmp_path)])
    assert ran.returncode == 2 and "is not a zoo" in ran.stderr and "dwf zoo" in ran.stderr
    file = tmp_path / "untrained.yaml"
    file.write_text("{zoo: any, codec: {kind: pca}, density: {kind: gaussian}}")
    ran = run(["launch/generator.py", "--config", str(file), "--engine", "ddp"])
    assert ran.returncode == 2
    told = "error: --engine ddp: neither the codec pca nor the density gaussian trains"
    assert ran.stderr.startswith(told)
    ran = run(["launch/zoo.py", "--resume", "--name", "nowhere", "--root", str(tmp_path)])
    assert ran.returncode == 2 and "holds no run" in ran.stderr
