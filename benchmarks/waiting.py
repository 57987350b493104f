"""Stages of a small demo on a quiet machine and beside one busy process.

Threads that wait can sleep after some microseconds, as dwf lets them (see `dwf/__init__.py`), or
spin, as OpenMP does otherwise. Beside other work a thread that spins holds the core that another
needs to go on. Each run is a whole pipeline in a process of its own, from an empty folder; sides
alternate.

The bounds hold on a machine that is quiet but for this: the load before each run is recorded.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from harness import Result

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
BUSY, SLOWEST = "beside a busy process", 2.5
SPINNING, LOSS = "spinning", 1.05
SPINS = "300000"  # what the library does where nothing is said
_STAGE = re.compile(r"^(\w+): ([\d.]+) s$", re.MULTILINE)


@dataclass(frozen=True)
class Size:
    """How much work a demo is."""

    networks: int
    steps: int
    samples: int
    epochs: int


FULL, QUICK = Size(1024, steps=300, samples=100, epochs=20), Size(48, steps=8, samples=8, epochs=2)


def run(quick: bool) -> list[Result]:
    """Time the demo on each side, three times, or once and smaller."""
    sides = {"quiet": False, SPINNING: False, BUSY: True, f"{SPINNING} {BUSY}": True}
    seconds: dict[str, dict[str, list[float]]] = {}
    loads: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(1 if quick else 3):
        for side, is_busy in sides.items():
            if repeat and side == f"{SPINNING} {BUSY}":
                continue  # it takes minutes, and no target is held to it
            loads[side].append(os.getloadavg()[0])
            with _busy_process(is_busy):
                took = _time_demo(QUICK if quick else FULL, spins=side.startswith(SPINNING))
            for stage, time in took.items():
                seconds.setdefault(stage, {side: [] for side in sides})[side].append(time)
    results = [_result(stage, times, quick) for stage, times in seconds.items()]
    whole = {side: _sums([times[side] for times in seconds.values()]) for side in sides}
    results.append(_result("the whole demo", whole, quick))
    results[-1].figures |= {f"load before {side}": max(load) for side, load in loads.items()}
    return results


def _result(stage: str, times: dict[str, list[float]], quick: bool) -> Result:
    result = Result(f"small demo: {stage}", seconds=times)
    if not quick:
        result.targets = {
            f"{BUSY} / quiet": ("<=", SLOWEST),
            f"{SPINNING} / quiet": (">=", 1 / LOSS),
        }
    return result


def _sums(stages: list[list[float]]) -> list[float]:
    return [sum(repeat) for repeat in zip(*stages, strict=True)]


def _time_demo(size: Size, *, spins: bool) -> dict[str, float]:
    """Run the pipeline in an empty folder; return stage -> seconds, as it says."""
    own = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    environment |= {"PYTHONPATH": str(ROOT)}
    if spins:
        environment |= {"GOMP_SPINCOUNT": SPINS, "KMP_BLOCKTIME": "200"}
    with TemporaryDirectory(prefix="dwf-waiting-") as folder:
        words = ["pipeline", "--config", str(_write(Path(folder), size)), "--root", folder]
        ran = subprocess.run(
            [sys.executable, "-m", "dwf", *words, "--track", "none"],
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
    if ran.returncode:
        raise SystemExit(f"the demo failed:\n{ran.stderr[-2000:]}")
    took: dict[str, float] = {}
    for stage, time in _STAGE.findall(ran.stdout):
        took[stage] = took.get(stage, 0.0) + float(time)
    return took


def _write(folder: Path, size: Size) -> Path:
    """Write the settings of a demo: a zoo of digits MLPs, a flow over units, a report."""
    training = {"steps": size.steps, "validate_every": max(size.steps // 4, 1)}
    training["batch_size"] = min(64, size.networks // 4)
    stages = {
        "zoo": {
            "extends": str(CONFIGS / "zoo" / "digits_4096.yaml"),
            "count": size.networks,
            "recipe": {"epochs": size.epochs},
            "shard": max(size.networks // 8, 1),
            "split": {"val": 0.2, "test": 0.2},
        },
        "align": {"extends": str(CONFIGS / "align" / "iterated_mean.yaml"), "num_pairs": 16},
        "generator": {
            "extends": str(CONFIGS / "generator" / "digits_neurons.yaml"),
            "density": {"training": training},
        },
        "sample": {"count": size.samples},
        "evaluate": {"count": size.samples, "noise": [0.1], "averages": [2]},
    }
    for stage, settings in stages.items():
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    files = {stage: str(folder / f"{stage}.yaml") for stage in stages}
    way = {**files, "generators": [files["generator"]]}
    del way["generator"]
    (folder / "demo.yaml").write_text(yaml.safe_dump(way), encoding="utf-8")
    return folder / "demo.yaml"


@contextmanager
def _busy_process(is_wanted: bool) -> Iterator[None]:
    """Within the block a process beside keeps one core busy, if one is wanted."""
    if not is_wanted:
        yield
        return
    beside = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        beside.kill()
        beside.wait()
