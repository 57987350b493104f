"""Generators that differ in their seed alone, taken together: mean and spread over seeds."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dwf.evaluation.report.sets import NetworkSet
from dwf.plain import Json

_SEED = r"-s\d+(?=-|$)| \(s\d+\)$"
# What differs between samples of generators of other seeds.
_OF_A_SEED = {"generator", "digest", "seed"}


@dataclass(frozen=True)
class SeedGroup:
    """Samples of generators that differ in their seed alone."""

    seeds: tuple[int, ...]
    sets: tuple[NetworkSet, ...]

    @property
    def title(self) -> str:
        """The samples' titles without `-s1` or `(s1)`; all of them, where they differ in more."""
        bare = dict.fromkeys(re.sub(_SEED, "", one.title) for one in self.sets)
        return next(iter(bare)) if len(bare) == 1 else ", ".join(one.title for one in self.sets)

    def over_seeds(self, measure: str) -> tuple[float, float] | None:
        """Return mean and deviation (n - 1) over seeds of what stands for a measure of each set.

        Args:
            measure: see `NetworkSet.figure`.

        Returns:
            None where a set has no such number.
        """
        figures = [one.figure(measure) for one in self.sets]
        if None in figures:
            return None
        return float(np.mean(figures)), float(np.std(figures, ddof=1))

    @property
    def note(self) -> str:
        """Sentence on the figures over seeds."""
        scored = self.sets[0].scored
        split = scored.removesuffix("_accuracy")
        shown = {f"{split} accuracy": (scored, 100, " %"), "distance": ("distance_ratio", 1, "")}
        shown |= {"good and novel": ("good_and_novel", 100, " %")}
        words = []
        for name, (measure, factor, unit) in shown.items():
            if (found := self.over_seeds(measure)) is not None:
                mean, std = (factor * number for number in found)
                words.append(f"{name} {mean:.4g} +- {std:.2g}{unit}")
        seeds = ", ".join(map(str, self.seeds))
        return (
            f"{self.title} over {len(self.sets)} seeds ({seeds}): {', '.join(words)}; mean and "
            "standard deviation of the seeds' own figures."
        )


def seed_groups(
    sets: Sequence[NetworkSet], facts: Mapping[str, Mapping[str, Json]]
) -> Iterator[SeedGroup]:
    """Yield the samples of generators that differ in their seed alone, two or more together.

    Args:
        sets: of a report.
        facts: of the same, which say how each generator and its samples were made.
    """
    groups: dict[str, dict[int, NetworkSet]] = {}
    for one in sets:
        drawn = facts.get(f"samples {one.source}", {})
        settings = facts.get(f"settings of generator {drawn.get('generator')}")
        if one.family == "samples" and settings and "seed" in settings:
            same = [
                {name: value for name, value in each.items() if name not in _OF_A_SEED}
                for each in (drawn, settings)
            ]
            groups.setdefault(json.dumps(same, sort_keys=True), {})[settings["seed"]] = one
    for found in groups.values():
        if len(found) > 1:
            yield SeedGroup(tuple(found), tuple(found.values()))
