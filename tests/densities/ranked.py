"""A small flow that ranks fit together; a program for the tests marked `deepspeed`.

python -m tests.densities.ranked FOLDER JSON...    each JSON: one fit, settings over TRAINING's
"""

import dataclasses
import os
import signal
from pathlib import Path

import torch

from dwf.backbones.config import ResidualMLPConfig
from dwf.codecs import codes as codes_module
from dwf.codecs.codes import Codes, gather
from dwf.densities import paths
from dwf.densities.base_config import AutoguidanceConfig
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.densities.flow import Flow
from dwf.ranks import exit_together, world
from dwf.training.config import LoopComputeConfig, LoopConfig
from tests.densities.coded import vector_codes
from tests.ranked import do_jobs, open_run

TRAINING = LoopConfig(
    steps=12, batch_size=8, learning_rate=0.01, weight_decay=0.01, clip_norm=1.0, validate_every=1,
    compute=LoopComputeConfig(save_seconds=1e6, threads=1, device="cpu", kernel="torch"),
    schedule="cosine",
)  # fmt: skip
FLOW = FlowConfig(
    ResidualMLPConfig(width=16, depth=2),
    TRAINING,
    solver=SolverConfig("rk4", 4),
    pairing="optimal_transport",
    condition="none",
    autoguidance=AutoguidanceConfig(after=0.5, weight=1.5),
)


def codes(count: int, seed: int) -> Codes:
    return vector_codes(torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) * 2)


def fit(folder: Path, name: str, settings: dict) -> Flow:
    """Fit once in FOLDER/NAME; ranks together."""
    on_disk, pairing = settings.pop("on_disk", False), settings.pop("pairing", FLOW.pairing)
    source = settings.pop("source", FLOW.source)
    training = dataclasses.replace(TRAINING, **settings)
    flow = Flow(dataclasses.replace(FLOW, training=training, pairing=pairing, source=source))
    ours = world()
    run = open_run(folder / name, flow.config)
    train = codes(64, 1)
    if on_disk:
        codes_module.MOST_HELD = 0
        train = gather([train], len(train), file=folder / name / "train.npy")
        assert train.is_mapped
    flow.fit(train, codes(16, 2), run=run, seed=7)
    if ours.is_first:
        flow.save(folder / name / "density")
    return flow


def do(folder: Path, name: str, job: dict) -> None:
    """Do one job; with `stop_at`, a signal asks the rank `stop_rank` to stop at that update."""
    stop_at, stop_rank = job.pop("stop_at", None), job.pop("stop_rank", 0)
    steps, error = 0, paths.mse_loss

    def counted(*args, **kwargs):
        nonlocal steps
        if torch.is_grad_enabled():
            steps += 1
            if steps == stop_at and world().rank == stop_rank:
                os.kill(os.getpid(), signal.SIGUSR2)
        return error(*args, **kwargs)

    paths.mse_loss = counted
    try:
        fit(folder, name, settings=job)
    finally:
        paths.mse_loss = error


def main() -> None:
    """Do the fits in turn; one that is stopped is no error."""
    do_jobs(do)


if __name__ == "__main__":
    exit_together(main)
