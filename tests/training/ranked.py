"""A small task that ranks learn together; a program for the tests marked `deepspeed`.

python -m tests.training.ranked FOLDER JSON...    each JSON: one training, settings over CONFIG's
"""

import dataclasses
import os
import signal
import subprocess
from pathlib import Path

import torch
from torch import nn

from dwf.errors import ConfigError, Preempted, TrainingDiverged
from dwf.randomness import torch_stream
from dwf.ranks import exit_together, world
from dwf.run_folder import RunPart, save_state
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.loop import Outcome, Task, train
from tests.ranked import do_jobs, launch_jobs, open_run

CONFIG = LoopConfig(
    steps=8, batch_size=8, learning_rate=0.01, weight_decay=0.01, clip_norm=1.0, validate_every=1,
    compute=LoopComputeConfig(save_seconds=1e6, threads=1, device="cpu", kernel="torch"),
)  # fmt: skip


class Net(nn.Module):
    """Two layers, dropout, a buffer, and a head that the loss leaves out."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 32), nn.Linear(32, 3)
        self.unused = nn.Linear(32, 2)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("shift", torch.full((3,), 0.5))
        self.register_buffer("scale", torch.full((3,), 2.0), persistent=False)

    def forward(self, x):
        hidden = self.dropout(torch.nn.functional.gelu(self.first(x)))
        return self.last(hidden) * self.scale + self.shift


class Ranked(Task):
    """What an example is follows from the step and its place in the batch alone."""

    tokens_per_example, flops_per_example = 2, 6.0 * (5 * 32 + 32 * 3)

    def __init__(self, dropout=0.0, noise=0.0, stop_at=None, stop=None, bad_at=None, bad_rank=0):
        self.module = Net(dropout)
        self.map = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
        self.noise, self.stop_at, self.stop = noise, stop_at, stop
        self.bad_at, self.bad_rank = bad_at, bad_rank

    def start(self, step, share):
        self.step, self.micro, self.share = step, 0, share

    def loss(self, module, batch_size, generator):
        start, stop = self.share.examples(self.micro)
        assert stop - start == batch_size
        x = torch.cat([self.example(self.step, i) for i in range(start, stop)])
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=generator)
        self.micro += 1
        if self.micro == self.share.accumulate:
            self.micro, self.step = 0, self.step + 1
            if self.step == self.stop_at and self.stop:
                self.stop()
        loss = (module(x) - x @ self.map).square().mean()
        is_bad = self.step == self.bad_at and self.share.rank == self.bad_rank
        return loss * float("nan") if is_bad else loss

    def example(self, step, place):
        return torch.randn(1, 5, generator=torch_stream(3, "example", step, place))

    @torch.no_grad()
    def validate(self, module):
        assert not module.training
        x = torch.randn(64, 5, generator=torch_stream(3, "held out"))
        return (module(x) - x @ self.map).square().mean().item()

    def describe(self, step):
        return f"shard {step} of rank {self.share.rank}"


def learn(folder: Path, name: str, settings: dict, **task) -> tuple[Ranked, Outcome]:
    """Train once in FOLDER/NAME; ranks together."""
    compute = dataclasses.replace(CONFIG.compute, **settings.get("compute", {}))
    config = dataclasses.replace(CONFIG, **settings | {"compute": compute})
    ours = world()
    open_run(folder / name, config)
    task = Ranked(**task)
    outcome = train(task, config, seed=7, run=RunPart(folder / name), what=name)
    if ours.is_first:
        save_state(folder / name / "result.pt", dict(task.module.state_dict()))
    return task, outcome


def launch_trainings(num: int, folder: Path, *jobs: dict) -> subprocess.CompletedProcess:
    """Run this program."""
    return launch_jobs(num, "tests.training.ranked", folder, *jobs)


STOPS = {
    "signal": lambda: os.kill(os.getpid(), signal.SIGUSR2),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def do(folder: Path, name: str, job: dict) -> None:
    """Do one job; what is no setting is the task's."""
    task = {key: job.pop(key) for key in ("dropout", "noise", "stop_at", "bad_at") if key in job}
    stop = job.pop("stop", None)
    if stop and world().rank == job.pop("stop_rank", 0):
        task["stop"] = STOPS[stop]
    task["bad_rank"] = job.pop("bad_rank", 0)
    learn(folder, name, settings=job, **task)


def main() -> None:
    """Do the trainings in turn; one that is stopped or refused is no error."""
    do_jobs(do, (Preempted, TrainingDiverged, ConfigError))


if __name__ == "__main__":
    exit_together(main)
