"""The training loop against plain torch; interrupted anywhere it resumes bitwise."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from dwf import preemption
from dwf.devices import find_device
from dwf.errors import ConfigError, Preempted, TrainingDiverged
from dwf.metrics import read_metrics
from dwf.run_folder import RunFolder, load_state, save_state
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.loop import Task, train

CONFIG = LoopConfig(
    steps=23, batch_size=8, learning_rate=0.01, weight_decay=0.01, ema=0.9, clip_norm=1.0,
    validate_every=5, compute=LoopComputeConfig(save_seconds=0, threads=1), keep="best", warm_up=3,
)  # fmt: skip

VARYING = ("steps/s", "samples/s", "data_wait", "memory_GiB")


class Regression(Task):
    """Learn y = x A with a network that has dropout and running statistics."""

    def __init__(self, stop_at=None, stop=None, held_out=True):
        torch.manual_seed(0)
        self.module = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, 2)
        )
        self.map = torch.randn(4, 2)
        self.held_out = torch.randn(32, 4) if held_out else None
        self.calls, self.stop_at, self.stop = 0, stop_at, stop

    def loss(self, module, batch_size, generator):
        self.calls += 1
        if self.calls == self.stop_at:
            self.stop()
        x = torch.randn(batch_size, 4, generator=generator)
        return (module(x) - x @ self.map).square().mean()

    def validate(self, module):
        if self.held_out is None:
            return None
        assert not module.training
        return (module(self.held_out) - self.held_out @ self.map).square().mean().item()


def run_loop(path, config=CONFIG, **task):
    task = Regression(**task)
    outcome = train(task, config, seed=7, run=RunFolder(path, config), what="regression")
    lines = read_metrics(path / "metrics.jsonl")
    timeless = [{k: v for k, v in line.items() if k not in VARYING} for line in lines]
    return task.module.state_dict(), timeless, outcome


def assert_same(one, other):
    for name, tensor in one[0].items():
        assert torch.equal(tensor, other[0][name]), name
    assert one[1:] == other[1:]


def raise_interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop_at", [3, 6, 12, 23])
def test_resume_after_an_exception_is_bitwise_equal(tmp_path, stop_at):
    whole = run_loop(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path / "cut", stop_at=stop_at, stop=raise_interrupt)
    torch.rand(99)  # another process has other global streams
    assert_same(run_loop(tmp_path / "cut"), whole)


def test_resume_from_an_older_checkpoint_is_bitwise_equal(tmp_path):
    whole = run_loop(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path / "cut", stop_at=17, stop=raise_interrupt)
    newest = tmp_path / "cut" / "checkpoints" / "step-00000016.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert_same(run_loop(tmp_path / "cut"), whole)


def test_a_resume_on_another_device_draws_anew(tmp_path, caplog):
    """A GPU's generator has a state of another size, which cannot be taken over."""
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path, stop_at=17, stop=raise_interrupt)
    file = tmp_path / "checkpoints" / "step-00000016.pt"
    state = load_state(file)
    for name in ("generator", "global_generator"):
        state["ranks"][0][name] = torch.zeros(16, dtype=torch.uint8)
    save_state(file, state)
    with caplog.at_level("INFO"):
        assert run_loop(tmp_path)[2].steps == 23
    assert "goes on after step 16, with new random streams: another device" in caplog.text


def test_resume_after_kill_is_bitwise_equal(tmp_path):
    script = f"""
        import importlib.util, os, pathlib, signal, torch
        torch.set_num_threads(1)
        spec = importlib.util.spec_from_file_location("loop", {__file__!r})
        loop = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loop)
        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        loop.run_loop(pathlib.Path({str(tmp_path / "cut")!r}), stop_at=14, stop=die)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "cut" / "checkpoints" / "step-00000013.pt").exists()
    assert_same(run_loop(tmp_path / "cut"), run_loop(tmp_path / "whole"))


def test_a_finished_run_trains_no_more(tmp_path):
    whole = run_loop(tmp_path)
    assert_same(run_loop(tmp_path, stop_at=1, stop=raise_interrupt), whole)


def test_preemption_saves_and_stops(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, compute=LoopComputeConfig(save_seconds=1e6, threads=1))
    whole = run_loop(tmp_path / "whole", config)
    monkeypatch.setattr(preemption, "_asked", [])
    ask = lambda: preemption._asked.append(signal.SIGTERM)  # noqa: E731
    with pytest.raises(Preempted, match="SIGTERM"):
        run_loop(tmp_path / "cut", config, stop_at=9, stop=ask)
    assert os.listdir(tmp_path / "cut" / "checkpoints") == ["step-00000009.pt"]
    monkeypatch.setattr(preemption, "_asked", [])
    assert_same(run_loop(tmp_path / "cut", config), whole)


def test_the_global_stream_is_left_alone(tmp_path):
    torch.manual_seed(3)
    task = Regression()
    state = torch.get_rng_state()
    train(task, CONFIG, seed=7, run=RunFolder(tmp_path, {}), what="regression")
    assert torch.equal(torch.get_rng_state(), state)


def test_keeps_the_best_weights(tmp_path):
    class GetsWorse(Regression):
        losses = iter([3.0, 1.0, 2.0, 4.0, 5.0])

        def validate(self, module):
            self.seen = getattr(self, "seen", [])
            self.seen.append({k: v.clone() for k, v in module.state_dict().items()})
            return next(self.losses)

    task = GetsWorse()
    outcome = train(task, CONFIG, seed=7, run=RunFolder(tmp_path, {}), what="regression")
    assert (outcome.kept_step, outcome.val_loss, outcome.steps) == (10, 1.0, 23)
    for name, tensor in task.module.state_dict().items():
        assert torch.equal(tensor, task.seen[1][name])
    assert not task.module.training


def test_metrics_lines(tmp_path):
    lines = run_loop(tmp_path)[1]
    assert [line["step"] for line in lines] == [5, 10, 15, 20, 23]
    assert set(lines[0]) == {"step", "train_loss", "val_loss", "learning_rate"}
    raw = read_metrics(tmp_path / "metrics.jsonl")[0]
    assert raw["samples/s"] == pytest.approx(8 * raw["steps/s"])


class Looks:
    """Counts how often it is asked, and finds the middle of three looks the best."""

    def __init__(self):
        self.seen = []

    def __call__(self, module):
        assert not module.training
        torch.rand(5)  # what it draws itself changes no training
        self.seen.append({k: v.clone() for k, v in module.state_dict().items()})
        return {"sample_accuracy": 0.9 if len(self.seen) == 2 else 0.1 * len(self.seen)}


def run_looking(path, config, looks, **task):
    task = Regression(**task)
    outcome = train(
        task, config, seed=7, run=RunFolder(path, config), what="regression", look=looks
    )
    return task.module.state_dict(), read_metrics(path / "metrics.jsonl"), outcome


def test_samples_are_looked_at_in_training_and_change_nothing(tmp_path):
    plain = run_loop(tmp_path / "plain", dataclasses.replace(CONFIG, keep="last"))
    looks = Looks()
    config = dataclasses.replace(CONFIG, keep="last", sample_every=10)
    state, lines, _ = run_looking(tmp_path / "looked", config, looks=looks)
    assert all(torch.equal(state[name], plain[0][name]) for name in state)
    found = {line["step"]: line["sample_accuracy"] for line in lines if "sample_accuracy" in line}
    assert found == {10: 0.1, 20: 0.9, 23: pytest.approx(0.3)}  # the last step, too
    assert [line["val_loss"] for line in lines] == [line["val_loss"] for line in plain[1]]


def test_best_samples_keeps_what_the_best_were_drawn_from_also_when_resumed(tmp_path):
    config = dataclasses.replace(CONFIG, keep="best_samples", sample_every=10)
    looks = Looks()
    state, _, outcome = run_looking(tmp_path / "whole", config, looks=looks)
    assert outcome.kept_step == 20
    assert all(torch.equal(state[name], looks.seen[1][name]) for name in state)
    again = Looks()
    with pytest.raises(KeyboardInterrupt):
        run_looking(tmp_path / "cut", config, looks=again, stop_at=22, stop=raise_interrupt)
    resumed, _, outcome = run_looking(tmp_path / "cut", config, looks=again)
    assert outcome.kept_step == 20 and len(again.seen) == 3
    assert all(torch.equal(resumed[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sample_every": 7}, "not a multiple of validate_every = 5"),
        ({"keep": "best_samples"}, "chooses by the samples of sample_every, which is 0"),
    ],
)
def test_looks_that_cannot_be_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(CONFIG, **settings)


def test_what_draws_no_networks_has_nothing_to_look_at(tmp_path):
    with pytest.raises(ConfigError, match="regression draws no networks while it learns"):
        run_loop(tmp_path, dataclasses.replace(CONFIG, sample_every=5))


def test_matches_a_plain_loop(tmp_path):
    """The same batches through torch's own AdamW and clipping, by hand."""
    config = dataclasses.replace(CONFIG, ema=None, keep="last", schedule="constant", warm_up=0)
    task = Regression()
    task.module = nn.Linear(4, 2)
    plain = nn.Linear(4, 2)
    plain.load_state_dict(task.module.state_dict())
    batches = []
    loss = task.loss

    def remember(module, batch_size, generator):
        batches.append(generator.get_state())
        return loss(module, batch_size, generator=generator)

    task.loss = remember
    train(task, config, seed=7, run=RunFolder(tmp_path, {}), what="regression")
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.01)
    for state in batches:
        generator = torch.Generator()
        generator.set_state(state)
        optimizer.zero_grad()
        loss(plain, 8, generator=generator).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
    torch.testing.assert_close(task.module.state_dict(), plain.state_dict())


def train_linear(path, config):
    """Return a linear layer's weights before each step, and those that were kept."""
    task = Regression()
    task.module = nn.Linear(4, 2)
    before, loss = [], task.loss

    def remember(module, batch_size, generator):
        before.append(module.weight.detach().clone())
        return loss(module, batch_size, generator=generator)

    task.loss = remember
    train(task, config, seed=7, run=RunFolder(path, {}), what="regression")
    return before, task.module.weight.detach()


def test_average_is_the_recursion_by_hand(tmp_path):
    plain = dataclasses.replace(CONFIG, steps=9, ema=None, keep="last")
    before, last = train_linear(tmp_path / "plain", plain)
    mean, *after = [*before, last]
    for step, weight in enumerate(after):
        decay = min(0.15, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weight
    _, average = train_linear(tmp_path / "average", dataclasses.replace(plain, ema=0.15))
    torch.testing.assert_close(average, mean)


def test_a_loss_that_is_not_finite_names_step_and_rate(tmp_path):
    task = Regression()
    losses = iter([1.0] * 6 + [float("nan")] + [1.0] * 99)
    task.loss = lambda module, size, generator: next(losses) * module(torch.ones(size, 4)).mean()
    with pytest.raises(TrainingDiverged, match=r"nan at step 7 of 23, learning rate 0\.0\d+.*clip"):
        train(task, CONFIG, seed=7, run=RunFolder(tmp_path, {}), what="regression")
    assert max(p.name for p in (tmp_path / "checkpoints").iterdir()) == "step-00000006.pt"


def test_best_needs_something_held_out(tmp_path):
    with pytest.raises(ConfigError, match="keep = 'best' needs held-out networks"):
        run_loop(tmp_path / "best", held_out=False)
    config = dataclasses.replace(CONFIG, keep="last")
    assert run_loop(tmp_path / "last", config, held_out=False)[2].val_loss is None


def test_bf16_learns(tmp_path):
    compute = dataclasses.replace(CONFIG.compute, precision="bf16")
    config = dataclasses.replace(CONFIG, compute=compute)
    state, lines, _ = run_loop(tmp_path, config)
    assert lines[-1]["val_loss"] < lines[0]["val_loss"]
    assert state["0.weight"].dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the answer without a GPU")
def test_a_missing_gpu_is_said():
    with pytest.raises(ConfigError, match="no GPU"):
        find_device("cuda")
    assert find_device("auto").type == "cpu"
