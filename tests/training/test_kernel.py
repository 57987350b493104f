"""The kernel of a run's linear maps: forced, tried once, recorded, and kept by who goes on."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from dwf.backbones.linear import KERNELS, ONEDNN, TORCH, Linear, kernel_of
from dwf.errors import CorruptCheckpoint
from dwf.run_folder import RunPart
from dwf.training import kernel
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.kernel import Shapes, choose_kernel, recorded_kernel, time_kernels
from dwf.training.loop import Task, train

needs_both = pytest.mark.skipif(len(KERNELS) < 2, reason="this torch has no kernels of oneDNN")
CONFIG = LoopConfig(
    steps=6, batch_size=8, ema=0.9, validate_every=3, accumulate=2,
    compute=LoopComputeConfig(save_seconds=0, threads=1, device="cpu"),
)  # fmt: skip


class Map(Task):
    """Learn y = x A by three linear maps, with dropout."""

    def __init__(self, stop_at=None):
        torch.manual_seed(0)
        self.module = nn.Sequential(Linear(5, 32), nn.Dropout(0.1), Linear(32, 32), Linear(32, 3))
        self.map, self.stop_at, self.calls, self.seen = torch.randn(5, 3), stop_at, 0, []

    def loss(self, module, batch_size, generator):
        self.seen.append(kernel_of(self.module))
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        x = torch.randn(batch_size, 5, generator=generator)
        return (module(x) - x @ self.map).square().mean()

    def validate(self, module):
        self.seen.append(kernel_of(module))  # the moving average's
        return 0.0


def run(folder, wanted="auto", stop_at=None, save_seconds=0):
    compute = dataclasses.replace(CONFIG.compute, kernel=wanted, save_seconds=save_seconds)
    task = Map(stop_at)
    config = dataclasses.replace(CONFIG, compute=compute)
    train(task, config, seed=3, run=RunPart(folder), what="map")
    return task


def weights(task):
    return nn.utils.parameters_to_vector(task.module.parameters())


@pytest.fixture
def processor(monkeypatch):
    """Set which kernel a trial finds faster; returns how often it was asked."""
    monkeypatch.setattr(kernel, "FEWEST_PRODUCTS", 1)
    asked = []

    def fast(name, seconds=0.5):
        def found(shapes):
            asked.append(dict(shapes))
            return dict.fromkeys((TORCH, ONEDNN), 1.0) | {name: seconds}

        monkeypatch.setattr(kernel, "time_kernels", found)
        return asked

    return fast


@needs_both
@pytest.mark.parametrize("wanted", [TORCH, ONEDNN])
def test_a_forced_kernel_computes_the_whole_run(tmp_path, processor, wanted):
    asked = processor(TORCH if wanted == ONEDNN else ONEDNN)
    once, again = run(tmp_path / "once", wanted), run(tmp_path / "again", wanted)
    assert torch.equal(weights(once), weights(again))
    assert set(once.seen) == {wanted} == {kernel_of(once.module)}
    assert not asked and not (tmp_path / "once" / kernel.FILE).exists()


@needs_both
def test_both_kernels_learn_the_same(tmp_path):
    by_torch, by_onednn = run(tmp_path / "torch", TORCH), run(tmp_path / "onednn", ONEDNN)
    torch.testing.assert_close(weights(by_torch), weights(by_onednn), rtol=1e-4, atol=1e-5)


@needs_both
@pytest.mark.parametrize("fast", [TORCH, ONEDNN])
def test_the_faster_is_taken_after_the_first_update_and_recorded(tmp_path, processor, fast):
    asked = processor(fast)
    task = run(tmp_path)
    assert task.seen == [TORCH] * 2 + [fast] * (len(task.seen) - 2)
    assert kernel_of(task.module) == fast
    told = json.loads((tmp_path / kernel.FILE).read_text())
    assert told == {"kernel": fast, "threads": 1} | {
        f"{name}_ms": 500.0 if name == fast else 1000.0 for name in (TORCH, ONEDNN)
    }
    # Two micro-batches of 4 rows each.
    assert asked == [{(4, 5, 32): 2, (4, 32, 32): 2, (4, 32, 3): 2}]


@needs_both
@pytest.mark.parametrize("first", [TORCH, ONEDNN])
@pytest.mark.parametrize(("stop_at", "save_seconds"), [(3, 1e6), (7, 0)])
def test_another_processor_goes_on_with_the_recorded_kernel(
    tmp_path, processor, first, stop_at, save_seconds
):
    """After the first update without a checkpoint, and from a checkpoint."""
    processor(first)
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop_at=stop_at, save_seconds=save_seconds)
    record = (tmp_path / "cut" / kernel.FILE).read_bytes()
    asked = processor(TORCH if first == ONEDNN else ONEDNN)
    count = len(asked)
    resumed = run(tmp_path / "cut")
    assert torch.equal(weights(whole), weights(resumed))
    assert kernel_of(resumed.module) == first
    assert len(asked) == count and (tmp_path / "cut" / kernel.FILE).read_bytes() == record


@needs_both
def test_a_gain_within_the_noise_keeps_torch_s_own(tmp_path, processor):
    processor(ONEDNN, seconds=0.97)
    assert choose_kernel(tmp_path, Shapes({(4, 5, 32): 1})) == TORCH == recorded_kernel(tmp_path)


def test_little_work_is_not_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "FEWEST_PRODUCTS", 4 * 5 * 32 + 1)
    assert choose_kernel(tmp_path, Shapes({(4, 5, 32): 1})) == TORCH
    assert not list(tmp_path.iterdir())


def test_a_trial_leaves_chance_alone_and_counts_all_rows(monkeypatch):
    monkeypatch.setattr(kernel, "_MOST_PRODUCTS", 1)  # so 64 of many rows are tried
    before = torch.get_rng_state()
    seconds = time_kernels(Shapes({(100, 8, 16): 3, (1, 16, 8): 1}))
    assert torch.equal(torch.get_rng_state(), before)
    assert seconds.keys() == KERNELS.keys() and min(seconds.values()) > 0


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"kernel": '])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / kernel.FILE).write_text(content)
    with pytest.raises(CorruptCheckpoint, match=r"kernel\.json"):
        recorded_kernel(tmp_path)
