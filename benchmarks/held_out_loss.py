"""The loss of a flow on training and on held-out networks, at the same noise and times.

python launch/generator.py --config configs/generator/digits_neurons.yaml
python benchmarks/held_out_loss.py [--generator digits_neurons] [--root FOLDER] [--count 256]

Equal ones say that nothing was learnt by heart. What a training records of its batches and of
held-out networks cannot be compared as well: these have other noise, drawn once. Writes
benchmarks/results/held_out_loss-GENERATOR.json.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from run import HERE, hardware

from dwf.errors import exit_cleanly
from dwf.generators.facts import conditions_of
from dwf.generators.generator import METRIC, Generator
from dwf.randomness import numpy_stream
from dwf.run_folder import load_state, write_json
from dwf.source import commit
from dwf.zoo.store import Zoo


def main() -> None:
    """Measure each split at every seed, and the differences seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", default="digits_neurons")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of zoos/ and runs/")
    parser.add_argument("--count", type=int, default=256, help="networks of each split, at most")
    parser.add_argument("--seeds", type=int, default=12, help="draws of noise and times")
    args = parser.parse_args()
    torch.set_num_threads(1)
    run = args.root / "runs" / args.generator
    generator = Generator.load(run)
    zoo = Zoo.open(args.root / "zoos" / generator.source["zoo"])
    metric = load_state(run / METRIC) if (run / METRIC).exists() else []
    names = generator.density.config.conditions
    losses, counts = {}, {}
    for split in ("train", "val", "test"):
        rows = numpy_stream(0, "held-out loss", split).permutation(zoo.rows(split))[: args.count]
        rows = np.sort(rows)
        codes = generator.codec.encode(torch.from_numpy(zoo.read(rows)), zoo.layout)
        told = {name: conditions_of([(zoo, rows)], name) for name in names}
        losses[split] = np.array(
            [
                generator.density.loss(codes, seed, conditions=told, metric=metric)
                for seed in range(1, args.seeds + 1)
            ]
        )
        counts[split] = len(rows)
    report = {"generator": args.generator, "networks": counts, "seeds": args.seeds} | {
        split: {"mean": each.mean(), "std": each.std(ddof=1)} for split, each in losses.items()
    }
    for split in ("val", "test"):
        apart = losses[split] - losses["train"]
        error = apart.std(ddof=1) / len(apart) ** 0.5
        report[f"{split} - train"] = {"mean": apart.mean(), "standard_error": error}
        print(f"{split}: {losses[split].mean():.4f}, {apart.mean():+.4f} +- {error:.4f} from train")
    print(f"train: {losses['train'].mean():.4f}")
    report |= {"hardware": hardware(), "commit": commit(), "torch": torch.__version__}
    write_json(HERE / "results" / f"held_out_loss-{args.generator}.json", report)


if __name__ == "__main__":
    exit_cleanly(main)
