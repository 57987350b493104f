"""What a trial costs beside its stages: Ray Tune, workers, looking for what is shared.

Target: under 5 s a trial where zoo, alignment and codec are shared.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from harness import Result

WORKERS = 2
STAGES = {
    "zoo": {
        "network": {"kind": "mlp", "widths": [64, 16, 10]},
        "data": {"kind": "digits", "validation": 0.15},
        "count": 48,
        "recipe": {"epochs": 4, "batch_size": 64, "learning_rate": 0.01},
        "split": {"val": 0.1, "test": 0.1},
        "shard": 24,
    },
    "align": {"num_pairs": 4},
    "generator": {
        "codec": {"kind": "pca"},
        "density": {
            "kind": "flow",
            "backbone": {"kind": "residual_mlp", "width": 64, "depth": 2},
            "training": {"steps": 500, "batch_size": 16, "threads": 1},
            "solver": {"method": "heun2", "steps": 8},
        },
    },
    "sample": {"count": 50},
    "evaluate": {"count": 50},
}


def run(quick: bool) -> list[Result]:
    """Time a sweep over the seeds of a generator: 16 trials (quick: 4), two at a time."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from dwf.cluster import ray_cluster
    from dwf.settings import build
    from dwf.sweeps import stage
    from dwf.sweeps.config import SweepConfig
    from dwf.sweeps.trial import read_records

    num = 4 if quick else 16
    begun = time.perf_counter()
    ray_cluster.connect(WORKERS)
    connected = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder, _timed_trials() as spans:
        root = Path(folder)
        for name, data in STAGES.items():
            (root / f"{name}.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
        sweep: dict = {name: str(root / f"{name}.yaml") for name in STAGES}
        sweep["space"] = {"generator.seed": {"grid": list(range(num))}}
        config = build(SweepConfig, sweep, source="benchmark")
        begun = time.perf_counter()
        stage.run_sweep(config, root, name="sweep", run=ray_cluster.runner(WORKERS))
        whole = time.perf_counter() - begun
        records = read_records(root / "sweeps" / "sweep")
    waited = [_outside(record) for record in records.values()]
    inside = sum(_inside(record) for record in records.values())
    overhead = (WORKERS * sum(spans) - inside) / num
    return [
        Result(
            f"{num} trials, {WORKERS} at a time, that differ in their generator",
            seconds={"in a trial, outside its stages": waited},
            figures={
                "overhead of a trial (s)": overhead,
                "stages of a trial (s)": inside / num,
                "whole sweep, zoo and report included (s)": whole,
                "start of Ray, once a sweep (s)": connected,
                "median trial, outside its stages (s)": statistics.median(waited),
            },
            targets={"overhead of a trial (s)": ("<=", 5.0)},
        )
    ]


def _inside(record: dict) -> float:
    return sum(s for name, s in record["seconds"].items() if name not in ("trial", "waited"))


def _outside(record: dict) -> float:
    return record["seconds"]["trial"] - _inside(record)


@contextlib.contextmanager
def _timed_trials() -> Iterator[list[float]]:
    """Yield what will hold the seconds in which trials ran: Tune's start and end included."""
    from dwf.sweeps import stage

    spans, own = [], stage._tune

    def timed(*arguments: object) -> object:
        begun = time.perf_counter()
        try:
            return own(*arguments)
        finally:
            spans.append(time.perf_counter() - begun)

    stage._tune = timed
    try:
        yield spans
    finally:
        stage._tune = own
