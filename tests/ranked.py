"""Programs that ranks run together: how tests start them, and the frame they share.

Many jobs share one launch, as each process pays for importing torch and DeepSpeed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dwf import distributed, preemption
from dwf.errors import Preempted
from dwf.metrics import log_to_stderr, read_metrics
from dwf.ranks import find_ranks, world
from dwf.run_folder import RunFolder

ROOT = Path(__file__).parents[1]


def launch(num: int, *words: object, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run a Python program as ranks that torchrun starts; as one process without it for 1."""
    start = [sys.executable]
    if num > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num}"]
    return subprocess.run(
        [*start, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def launch_jobs(num: int, program: str, folder: Path, *jobs: dict) -> subprocess.CompletedProcess:
    """Run a program whose `main` does jobs in a folder."""
    return launch(num, "-m", program, folder, *map(json.dumps, jobs))


def open_run(path: Path, config: object = None) -> RunFolder:
    """Open a run on all ranks, as a stage does: the first alone writes its records."""
    world().on_first(lambda: RunFolder(path, config or {}) and None)
    return RunFolder.beside(path, config or {})


def do_jobs(
    do: Callable[[Path, str, dict], object], ends: tuple[type[Exception], ...] = (Preempted,)
) -> None:
    """Do the jobs of the command line in turn: `do(folder, name, settings)`.

    One that ends by one of `ends`, as those that are stopped do, is no error.
    """
    preemption.watch()
    distributed.begin(Path(sys.argv[1]) / "ranks")
    if find_ranks().is_first:
        log_to_stderr()
    for text in sys.argv[2:]:
        job = json.loads(text)
        try:
            do(Path(sys.argv[1]), job.pop("name"), job)
        except ends as stopped:
            print(f"rank {world().rank}: {stopped}", flush=True)
            preemption.forget()


def losses(folder: Path, name: str, key: str = "train_loss") -> list[float]:
    """Of each step."""
    return [line[key] for line in read_metrics(folder / name / "metrics.jsonl")]
