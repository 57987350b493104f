"""Fits of small flows by engines that share a training; a program for the tests of one GPU.

python -m tests.gpu.ranked FOLDER JSON...    each JSON: one fit, its `device`, settings of training
"""

from pathlib import Path

import torch
import torch.distributed as dist

from dwf import distributed
from dwf.generators.stage import fit_generator
from dwf.ranks import exit_together
from tests.gpu.bodies import flow_of
from tests.ranked import do_jobs


def do(folder: Path, name: str, job: dict) -> None:
    """Fit one flow, or, by the name `sum`, add up over the ranks of this one process."""
    device = job.pop("device")
    if name == "sum":
        distributed.begin_alone()
        numbers = torch.arange(4.0, device=device)
        dist.all_reduce(numbers)
        print(f"{device}: {numbers.tolist()} by {dist.get_backend_config()}", flush=True)
        return
    fit_generator(flow_of(device, "pca", steps=8, **job), folder, name=name)


if __name__ == "__main__":
    exit_together(lambda: do_jobs(do))
