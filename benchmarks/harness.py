"""How dwf is timed: sides interleaved in one run, ratios of medians, spread kept.

These machines are noisy: absolute times are not comparable between runs, ratios within one are.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dwf.errors import DataUnavailable


@dataclass
class Result:
    """One benchmark: what was measured and what it must reach."""

    name: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Side -> seconds of each repeat; the first side is ours."""
    figures: dict[str, float] = field(default_factory=dict)
    """Other numbers, units in the name (`share of peak`, `memory (MiB)`)."""
    targets: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Figure or `side / ours` ratio -> (">=" or "<=", value)."""
    missing: str = ""
    """Why nothing was measured: data that are not here and could not be fetched."""

    def values(self) -> dict[str, float]:
        """Median seconds of each side, ratio of each other side to ours, and the figures."""
        medians = {side: statistics.median(times) for side, times in self.seconds.items()}
        out = {f"{side} (s)": value for side, value in medians.items()}
        if medians:
            ours, *others = medians
            out |= {f"{side} / {ours}": medians[side] / medians[ours] for side in others}
        return out | self.figures


def with_data(name: str, measure: Callable[[], Result]) -> Result:
    """Return a benchmark's result, or, where its data cannot be had, one that says so.

    Args:
        name: what is measured.
        measure: measures it; fetches what it needs.
    """
    try:
        return measure()
    except DataUnavailable as error:
        return Result(name, missing=str(error))


def interleave(sides: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, list[float]]:
    """Time each side `repeats` times, in turn, after one untimed call of each."""
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - start)
    return seconds
