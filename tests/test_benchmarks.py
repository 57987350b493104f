"""Benchmarks on machines that lack what they need: they say so, and record nothing."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dwf.errors import DataUnavailable

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of `benchmarks/`."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the answer without a GPU")
def test_without_a_gpu_there_is_no_result(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="torch finds no GPU here: nothing was measured"):
        benchmark("gpu").main()
    assert capsys.readouterr().out == ""


def test_what_data_are_wanting_for_is_left_out_and_nothing_recorded(
    benchmark, monkeypatch, capsys, tmp_path
):
    run, zoo = benchmark("run"), benchmark("zoo")

    def unreachable(config):
        raise DataUnavailable(f"{config.kind} is not here")

    for module in (zoo, zoo.convolutions):
        monkeypatch.setattr(module, "load_dataset", unreachable)
    monkeypatch.setattr(zoo.convolutions, "_an_hour", run.Result)
    monkeypatch.setattr(run, "HERE", tmp_path)
    run.run_topic("zoo", quick=False)
    said = capsys.readouterr().out
    assert "left out: mnist is not here" in said and "left out: cifar10 is not here" in said
    assert "not recorded" in said and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_is_rehearsed_on_the_cpu():
    """All of it, and little of each: no figure is missing or nonsense."""
    program = (
        "import sys, json; sys.path.insert(0, 'benchmarks'); import gpu; "
        "found = gpu.measure('cpu', gpu.SMALL); "
        "print(json.dumps({one.name: one.values for one in found}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=FOLDER.parent, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert sum("networks an hour" in name for name in found) == 3
    assert sum("MFU" in name for name in found) == 2
    assert all(value > 0 for values in found.values() for value in values)
