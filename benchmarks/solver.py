"""Quality against cost of a flow's solver: good and novel samples for each method and its steps.

python launch/pipeline.py --config configs/pipeline/digits_neurons.yaml
python benchmarks/solver.py [--generator digits_neurons] [--root FOLDER] [--count 512]

Judged on validation networks and images, as a choice between settings must be. Every setting starts
from the same noise. Writes benchmarks/results/solver.{json,png}; samples stay in zoos/, and those
that are there are not drawn again.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from run import HERE, hardware

from dwf.densities.config import SolverConfig
from dwf.errors import exit_cleanly
from dwf.evaluation.measure import Yardstick
from dwf.generators.config import SampleConfig
from dwf.generators.generator import read_head
from dwf.generators.sample_stage import sample_networks
from dwf.generators.subset import Subset
from dwf.plain import Json
from dwf.run_folder import write_json
from dwf.source import commit
from dwf.sweeps.trial import judge
from dwf.zoo.store import Zoo

METHODS = ("euler", "midpoint", "heun2", "rk4")
TRIED = (8, 16, 24, 32, 48, 64, 100)


def main() -> None:
    """Draw with every method at about equal costs, score, write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="digits_neurons")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of zoos/ and runs/")
    parser.add_argument("--count", type=int, default=512, help="samples of each setting")
    options = parser.parse_args()
    rows = measure(options.root, options.generator, count=options.count)
    conditions = {
        "command": f"python benchmarks/solver.py --generator {options.generator}",
        "commit": commit(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "judged on": "validation networks and images",
    }
    write_json(HERE / "results" / "solver.json", conditions | {"rows": rows})
    draw(rows).savefig(HERE / "results" / "solver.png", dpi=130, bbox_inches="tight")


def measure(root: Path, generator: str, *, count: int) -> list[dict[str, Json]]:
    """Return a row of numbers for each method and number of steps."""
    origin = read_head(root / "runs" / generator)["origin"]
    zoo, subset = Zoo.open(root / "zoos" / origin["zoo"]), Subset.read(origin)
    rows_learnt_from = subset.rows_of(zoo) if subset else None
    yardstick = Yardstick(zoo, zoo.load_data(), split="val", rows=rows_learnt_from)
    rows = []
    for method in METHODS:
        each = SolverConfig(method, steps=1).evaluations
        for steps in sorted({max(1, round(tried / each)) for tried in TRIED}):
            name = f"{generator}-{method}-{steps}"
            begun, started = (root / "zoos" / name).exists(), time.perf_counter()
            config = SampleConfig(generator, count=count, solver=method, steps=steps)
            samples = sample_networks(config, root, name=name)
            elapsed = None if begun else time.perf_counter() - started
            seconds = _seconds(samples.path / "run" / "drawn.json", elapsed)
            row = {"method": method, "steps": steps, "evaluations": each * steps}
            row |= {"seconds": seconds} | judge(samples, yardstick)
            rows.append(row)
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    return rows


def _seconds(record: Path, elapsed: float | None) -> float | None:
    """Seconds of drawing; of samples that were there as noted then, None where a kill left none."""
    if not record.exists() and elapsed is not None:
        write_json(record, {"seconds": elapsed})
    return json.loads(record.read_text(encoding="utf-8"))["seconds"] if record.exists() else None


def draw(rows: list[dict[str, Json]]) -> Figure:
    """Return the figure: a line for each method, with the standard error of a share."""
    figure = Figure(figsize=(6, 4))
    panel = figure.subplots()
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        shares = [row["good_and_novel"] for row in mine]
        errors = [
            100 * math.sqrt(s * (1 - s) / row["n"]) for s, row in zip(shares, mine, strict=True)
        ]
        at = [row["evaluations"] for row in mine]
        panel.errorbar(at, [100 * s for s in shares], yerr=errors, marker="o", label=method)
    panel.set_xscale("log")
    panel.set_xticks(TRIED, [str(tried) for tried in TRIED])
    panel.set_xticks([], minor=True)
    panel.set_xlabel("evaluations of the velocity for a sample")
    panel.set_ylabel("good and novel (%), validation")
    panel.legend()
    return figure


if __name__ == "__main__":
    exit_cleanly(main)
