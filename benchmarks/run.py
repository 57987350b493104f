"""Run the benchmarks, print each against its target, record them.

python benchmarks/run.py [--quick] [TOPIC ...]

Topics: zoo store align pca flow evaluation cluster sweep tokens sane neurons imports exports
finetuning diffusion measure memory predictor_statistics probes weightnet waiting
long_transformer; default: all.

A record holds command, commit, hardware, n and spread: benchmarks/results/NAME.json. `--quick` does
less work of each, to see that they run; its figures are not recorded.
"""

import argparse
import importlib
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

from harness import Result

# As `cluster/local.py` starts its workers; read by the C library before Python runs.
from dwf.cluster.local import KEEP_FREED_MEMORY
from dwf.run_folder import write_json
from dwf.source import commit

TOPICS = (
    "zoo",
    "store",
    "align",
    "pca",
    "flow",
    "evaluation",
    "cluster",
    "sweep",
    "tokens",
    "sane",
    "neurons",
    "imports",
    "exports",
    "finetuning",
    "diffusion",
    "measure",
    "memory",
    "predictor_statistics",
    "probes",
    "weightnet",
    "waiting",
    "long_transformer",
)
HERE = Path(__file__).parent


def main() -> None:
    """Each topic runs in a process of its own, so that none warms another's caches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topics", nargs="*", default=TOPICS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        run_topic(options.topics[0], options.quick)
        return
    for topic in options.topics:
        words = [sys.executable, __file__, topic, "--inside"] + ["--quick"] * options.quick
        subprocess.run(words, check=True, env=os.environ | KEEP_FREED_MEMORY)


def run_topic(topic: str, quick: bool) -> None:
    """Run one topic here, print and record it."""
    results = importlib.import_module(topic).run(quick)
    for result in results:
        print_result(result)
    left_out = [result.name for result in results if result.missing]
    if left_out and not quick:
        print(f"\nnot recorded: {', '.join(left_out)} could not be measured")
    elif not quick:
        records = [
            {"name": one.name, "values": one.values(), "seconds": one.seconds}
            | {"targets": one.targets}
            for one in results
        ]
        record = conditions(topic) | {"results": records}
        write_json(HERE / "results" / f"{topic}.json", record)


def print_result(result: Result) -> None:
    """Print one benchmark's numbers, each against its target."""
    print(f"\n{result.name}")
    if result.missing:
        print(f"  left out: {result.missing}")
    for name, value in result.values().items():
        print(f"  {name:<60} {value:10.4g}{_verdict(result.targets.get(name), value)}")
    for side, times in result.seconds.items():
        spread = statistics.quantiles(times, n=4) if len(times) > 1 else []
        text = ", ".join(f"{one:.4g}" for one in spread)
        print(f"  quartiles of {side:<47} {text} s, n = {len(times)}")


def _verdict(target: tuple[str, float] | None, value: float) -> str:
    if target is None:
        return ""
    sign, bound = target
    met = value >= bound if sign == ">=" else value <= bound
    return f"   target {sign} {bound:.3g}: {'met' if met else 'MISSED'}"


def hardware() -> str:
    """Return this machine's processor, cores and vector instructions, in words."""
    import torch

    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{cpu}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def conditions(topic: str) -> dict[str, object]:
    """Return what a record says of how, when and on what a topic was measured."""
    import torch

    return {
        "command": f"python benchmarks/run.py {topic}",
        "commit": commit(),
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
