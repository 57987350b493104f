"""What was only ever done on CPUs, on a GPU, against the same answers computed on the CPU.

    python -m pytest -m gpu tests/gpu

Needs no network and few libraries (see `tests/bare.py`); takes minutes on one GPU.
"""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch

from dwf.networks.config import CNNConfig
from dwf.training.throughput import measure_peak
from dwf.zoo.cohorts import Cohort, choose_method
from dwf.zoo.config import ZooComputeConfig
from tests.gpu.bodies import BODIES, SLOW_BODIES, adds_up, shares_by_deepspeed
from tests.zoo.convolutional import config, images

pytestmark = pytest.mark.gpu

EVERY = BODIES | SLOW_BODIES


@pytest.mark.parametrize("name", EVERY)
def test_on_a_gpu(name, tmp_path):
    EVERY[name]("cuda", tmp_path)


def test_a_cohort_is_as_large_as_the_free_memory_allows(monkeypatch):
    """Of 200 MiB that are said to be free, it takes no more, and most."""
    wide = CNNConfig((32, 32), (3, 8, 8), paddings=1, hidden=(64,), classes=3)
    zoo = config(wide, count=200, compute=ZooComputeConfig(device="cuda"), shard=200)
    free = 200 * 2**20
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, free))
    found = choose_method(zoo, images())
    assert found.method.chosen == "measured" and 1 < found.method.cohort < 200
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    networks = range(found.method.cohort)
    cohort = Cohort(zoo, networks, data=images(), folder=Path("/nonexistent"), method=found.method)
    cohort.time_steps(0.0, 1)
    took = torch.cuda.max_memory_allocated() - held
    assert 0.3 * free < took < free


def test_a_method_that_is_given_is_taken():
    zoo = config(count=8, cohort=4, compute=ZooComputeConfig(device="cuda", precision="bf16"))
    found = choose_method(zoo, images()).method
    assert dataclasses.asdict(found) | {"chosen": ""} == {
        "cohort": 4,
        "device": "cuda",
        "precision": "bf16",
        "channels_last": False,
        "compile": False,
        "chosen": "",
    }


def test_the_peak_is_measured_and_its_memory_given_back():
    held = torch.cuda.memory_allocated()
    peaks = [measure_peak(torch.device("cuda"), dtype) for dtype in (torch.float32, torch.bfloat16)]
    assert peaks[1] > peaks[0] > 1e12
    assert torch.cuda.memory_allocated() == held


def test_one_process_adds_up_by_nccl(tmp_path):
    assert "nccl" in adds_up("cuda", tmp_path)


@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="DeepSpeed is not installed")
def test_deepspeed_on_one_gpu(tmp_path):
    shares_by_deepspeed("cuda", tmp_path)
