"""Good and novel by the old rule and by today's, side by side, of the same networks.

python launch/pipeline.py --config configs/pipeline/digits_neurons.yaml
python benchmarks/rules.py --zoo digits_neurons-aligned --samples NAME-samples ...

The old rule held a network against the training network nearest by weights alone: it was good and
novel if it was accurate, further away than the 1st percentile of the training networks' own
distances, and shared no more wrong answers with that network than the 99th percentile of theirs. It
stands here alone, for comparison. Rows: all training networks (today's rule: those its limits come
from), held-out networks, samples, and the null arms, of which every one is a copy of parts. Writes
benchmarks/results/rules-ZOO.json.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from run import HERE, hardware

from dwf.errors import exit_cleanly
from dwf.evaluation.measure import Blocks, Measured, Rows, Yardstick, nearest, overlap
from dwf.metrics import log_to_stderr
from dwf.run_folder import write_json
from dwf.zoo.store import Zoo


@dataclass(frozen=True)
class OldRule:
    """Limits of the old rule, and the training networks that networks are held against."""

    training: Rows
    wrong_NM: np.ndarray
    accuracy: float
    distance: float
    overlap: float

    @classmethod
    def of(cls, yardstick: Yardstick, whole: Measured) -> "OldRule":
        """Return the rule that all training networks set, each held against all others."""
        training = yardstick.training
        distance_N, nearest_N = _nearest(training, training, own=True)
        overlap_N, _ = overlap(whole.wrong_SM, whole.wrong_SM, nearest_S=nearest_N)
        accuracy_N = whole.accuracy_S
        return cls(
            training,
            whole.wrong_SM,
            accuracy=float(accuracy_N.mean() - 2 * accuracy_N.std(ddof=1)),
            distance=float(np.percentile(distance_N, 1)),
            overlap=float(np.percentile(overlap_N, 99)),
        )

    def passed(self, measured: Measured, blocks: Blocks, *, own: bool = False) -> np.ndarray:
        """Return which networks are good and novel, bool_S."""
        distance_S, nearest_S = _nearest(blocks, self.training, own=own)
        overlap_S, _ = overlap(measured.wrong_SM, self.wrong_NM, nearest_S=nearest_S)
        accurate_S = measured.accuracy_S >= self.accuracy
        return accurate_S & (distance_S >= self.distance) & (overlap_S <= self.overlap)


def _nearest(blocks: Blocks, training: Rows, *, own: bool) -> tuple[np.ndarray, np.ndarray]:
    found = [
        nearest(weights_BK, training, own_B=positions_B if own else None)
        for positions_B, weights_BK in blocks
    ]
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


def rows_of(
    yardstick: Yardstick, samples: list[Zoo], *, count: int
) -> Iterator[tuple[str, Measured, Blocks]]:
    """Yield (title, measured, blocks of what is learnt in the zoo's frame) of each set."""
    zoo = yardstick.zoo
    for split in ("val", "test"):
        rows = zoo.rows(split, "last")
        if len(rows):
            title = f"held-out networks ({split})"
            yield title, yardstick.measure_zoo(zoo, rows), Rows(zoo, rows, learnt=True)
    for each in samples:
        rows = np.arange(len(each))
        blocks = _in_frame(yardstick, Rows(each, rows))
        yield each.name, yardstick.measure_zoo(each, rows), blocks
    for arm in yardstick.arms(count, seed=0):
        yield arm.title, yardstick.measure_arm(arm), _in_frame(yardstick, arm)


def _in_frame(yardstick: Yardstick, blocks: Blocks) -> list[tuple[np.ndarray, np.ndarray]]:
    learnt = yardstick.zoo.layout.learnt
    return [(at_B, learnt(yardstick.into_frame(weights_BD))) for at_B, weights_BD in blocks]


def main() -> None:
    """Measure each set once, and count by both rules."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", required=True)
    parser.add_argument("--samples", nargs="*", default=[])
    parser.add_argument("--root", type=Path, default=Path(), help="folder of zoos/")
    parser.add_argument("--count", type=int, default=100, help="networks of each null arm")
    args = parser.parse_args()
    log_to_stderr()
    zoo = Zoo.open(args.root / "zoos" / args.zoo)
    samples = [Zoo.open(args.root / "zoos" / each) for each in args.samples]
    yardstick = Yardstick(zoo, zoo.load_data())
    trained = yardstick.measure_zoo(zoo, yardstick.training.rows)
    old = OldRule.of(yardstick, trained)
    new = yardstick.limits
    told = {}

    def tell(title: str, by_old_S: np.ndarray, measured: Measured) -> None:
        by_new_S = new.passed(measured.accuracy_S, measured.novelty)["good_and_novel"]
        ratio_V = np.median(new.ratios(measured.novelty), axis=0)
        told[title] = {
            "n": len(measured.accuracy_S),
            "accuracy": [100 * measured.accuracy_S.mean(), 100 * measured.accuracy_S.std(ddof=1)],
            "old rule": 100 * by_old_S.mean(),
            "good and novel": 100 * by_new_S.mean(),
            "ratios: weights, behaviour, units": ratio_V.tolist(),
        }
        ratios = ", ".join(f"{ratio:.2f}" for ratio in ratio_V)
        mean, deviation = told[title]["accuracy"]
        print(
            f"| {title} | {told[title]['n']} | {mean:.2f} +- {deviation:.2f} | {ratios} "
            f"| {100 * by_old_S.mean():.1f} % | {100 * by_new_S.mean():.1f} % |",
            flush=True,
        )

    heads = ("networks", "n", "test accuracy (%)", "weights, behaviour, units", "old rule", "new")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    judged_J = yardstick.nearness.judged_J
    by_old_N = old.passed(trained, yardstick.training, own=True)
    tell("originals", by_old_N[judged_J], yardstick.originals)
    for title, measured, blocks in rows_of(yardstick, samples, count=args.count):
        tell(title, old.passed(measured, blocks), measured)
    write_json(
        HERE / "results" / f"rules-{args.zoo}.json",
        {"zoo": args.zoo, "sets": told, "hardware": hardware()},
    )


if __name__ == "__main__":
    exit_cleanly(main)
