"""Sets of networks: what a report holds of each, summarised over all its networks.

Shape suffixes: S networks of a set.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from dwf.evaluation.measure import FAMILIES, Limits, Measured
from dwf.plain import Json


@dataclass(frozen=True)
class Measure:
    """A number of each network of a set, as `report.json` holds it."""

    key: str
    """Its name there; `{split}` stands for the images that are scored."""
    values: Callable[[Measured, Limits], np.ndarray]
    """Returns values_S, float64."""
    figure: Literal["mean", "median"] = "mean"
    """The statistic that stands for the whole set, where one number must."""


MEASURES = (
    Measure("{split}_accuracy", lambda found, _: found.accuracy_S),
    Measure("val_accuracy", lambda found, _: found.val_accuracy_S),
    Measure("{split}_loss", lambda found, _: found.loss_S),
    Measure("distance", lambda found, _: found.distance_S, figure="median"),
    Measure(
        "distance_ratio", lambda found, limits: found.distance_S / limits.unit, figure="median"
    ),
    Measure("behaviour", lambda found, _: found.behaviour_S, figure="median"),
    Measure(
        "behaviour_ratio", lambda found, limits: limits.ratios(found.novelty)[:, 1], figure="median"
    ),
    Measure("units_ratio", lambda found, limits: _least_units(found, limits), figure="median"),
    Measure("overlap", lambda found, _: found.overlap_S),
    Measure("highest_overlap", lambda found, _: found.highest_overlap_S),
    Measure("disagreement", lambda found, _: found.disagreement_S),
    Measure("reach", lambda found, _: found.reach_S, figure="median"),
)
"""Measures that `report.json` holds of every network, with statistics in each set's summary."""


def _least_units(found: Measured, limits: Limits) -> np.ndarray:
    """Return of the layer whose units are nearest the ratio of its units' distance, of each."""
    ratio_SL = limits.ratios(found.novelty)[:, 2:]
    known_SL = np.where(np.isnan(ratio_SL), np.inf, ratio_SL)
    least_S = known_SL.min(1, initial=np.inf)
    return np.where(np.isinf(least_S), np.nan, least_S)


_FIGURES = {measure.key: measure.figure for measure in MEASURES}


@dataclass(frozen=True)
class NetworkSet:
    """One row of the report: a set of networks and all its numbers."""

    title: str
    family: str
    """`originals`, `held-out`, `samples`, or a baseline's family."""
    summary: dict[str, Json]
    """n, statistics of each measure, dispersion, the share that passes each test and of each kind
    (`copy`, `average`), its `mark` (name, why; see `marks`), its `profile` (see
    `measure.profile`), and, of networks with BatchNorm, statistics of the accuracies with the
    running statistics that were compared. Of some sets
    `ensemble` (n, accuracy), of sets that lie in zoos `exchanged` (see `coherence`), of samples
    that were selected `selection` (how), of samples that were drawn on conditions `condition`
    (generator, asked, guidance), of those that started from less noise `temperature`, of those
    that were led otherwise than their generator does by itself `autoguidance`. Where generators
    learnt from different training networks: `learnt_from`, how many of them the set is held
    against, and `subset`, which, where not all (see `Subset.label`)."""
    networks: dict[str, list[Any]]
    """Measure -> one value for each network."""
    source: str = ""
    """Zoo or files that samples lie in; empty for what the report made itself."""

    @property
    def share(self) -> float:
        """Share of good and novel networks."""
        return self.summary["good_and_novel"]

    @property
    def n(self) -> int:
        """How many networks."""
        return self.summary["n"]

    @property
    def subset(self) -> str:
        """Which of the training networks it is held against; empty for all."""
        return self.summary.get("subset", "")

    @property
    def bare_title(self) -> str:
        """Its title without its subset, which stands behind that of a baseline."""
        return self.title.removesuffix(f" ({self.subset})")

    @property
    def label(self) -> str:
        """Its title, and in brackets of samples what was learnt from, asked for, and drawn."""
        chosen, asked, words = self.summary.get("selection"), self.summary.get("condition"), []
        if self.subset and self.family == "samples":
            words.append(f"learnt from {self.subset}")
        if asked:
            words.append(f"asked for {asked_words(asked['asked'])}")
        if "temperature" in self.summary and self.family == "samples":
            words.append(f"temperature {self.summary['temperature']:g}")
        if "autoguidance" in self.summary and self.family == "samples":
            words.append(f"autoguidance {self.summary['autoguidance']:g}")
        if chosen:
            words.append(f"{chosen['drawn'] / chosen['kept']:.3g} drawn for each one kept")
        return f"{self.title} ({', '.join(words)})" if words else self.title

    @property
    def scored(self) -> str:
        """The accuracy that counts: `test_accuracy`, or `val_accuracy` where choices are made."""
        return "test_accuracy" if "test_accuracy" in self.summary else "val_accuracy"

    @property
    def accuracy(self) -> dict[str, float]:
        """Statistics of that accuracy."""
        return self.summary[self.scored]

    @property
    def accuracy_S(self) -> np.ndarray:  # noqa: N802  a shape, not a word
        """That accuracy of every network."""
        return self.values(self.scored)

    @property
    def mark(self) -> str:
        """Its mark, in a word; "-" where it is not marked."""
        return self.summary.get("mark", {}).get("name", "-")

    @property
    def is_baseline(self) -> bool:
        """Whether it is made from training networks without a generator."""
        return self.family in FAMILIES

    def figure(self, measure: str) -> float | None:
        """Return the number that stands for a measure of the set (see `Measure`), if it has any."""
        found = self.summary[measure]
        return found[_FIGURES.get(measure, "mean")] if isinstance(found, dict) else found

    def values(self, measure: str) -> np.ndarray:
        """Return one measure of all networks; NaN where a number was not finite."""
        numbers = self.networks[measure]
        return np.array([math.nan if v is None else v for v in numbers], float)


def row_kinds(sets: Sequence[NetworkSet]) -> list[str]:
    """Return how a page shows each row: samples marked, a line above each group of baselines."""
    kinds = ["samples" if one.family == "samples" else "" for one in sets]
    for row, (before, one) in enumerate(pairwise(sets), start=1):
        if one.is_baseline and not before.is_baseline:
            kinds[row] = "first-baseline"
    return kinds


def asked_words(asked: Mapping[str, float | str]) -> str:
    """Return what samples were asked for in words, as the command takes it."""
    told = {n: v if isinstance(v, str) else f"{v:g}" for n, v in asked.items()}
    return " ".join(f"{name}={value}" for name, value in told.items())


def network_set(
    title: str,
    family: str,
    *,
    measured: Measured,
    limits: Limits,
    zoo_spread: float,
    split: str,
    labels: Mapping[str, np.ndarray],
    more: Mapping[str, Json],
    source: str = "",
) -> NetworkSet:
    """Summarise a measured set over all its networks.

    Args:
        title: its name in the report.
        family: see `NetworkSet`.
        measured: its numbers.
        limits: what good and novel means here.
        zoo_spread: `spread` of the training networks.
        split: the images that were scored, `test` or `val`.
        labels: more columns to keep, shape [S]: which networks these are.
        more: what else the summary says, plain data.
        source: see `NetworkSet`.
    """
    passed = limits.passed(measured.accuracy_S, measured.novelty)
    passed |= limits.kinds(measured.novelty, reach_S=measured.reach_S)
    numbers = {
        measure.key.format(split=split): measure.values(measured, limits) for measure in MEASURES
    }
    summary: dict[str, Json] = {"n": len(measured.distance_S)}
    summary |= {name: statistics(values_S) for name, values_S in numbers.items()}
    summary["dispersion"] = measured.spread / zoo_spread
    summary |= {test: float(passed_S.mean()) for test, passed_S in passed.items()} | dict(more)
    if measured.compared:
        summary["batchnorm"] = {
            source: statistics(accuracy_S) for source, accuracy_S in measured.compared.items()
        }
    compared = {f"{split}_accuracy_{s}": values_S for s, values_S in measured.compared.items()}
    columns = dict(labels) | numbers | compared | passed
    networks = {name: values_S.tolist() for name, values_S in columns.items()}
    networks["map"] = measured.map_S2.tolist()
    networks["units"] = measured.units_SL.tolist()
    summary, networks = plain(summary), plain(networks)
    return NetworkSet(title, family, summary=summary, networks=networks, source=source)


def statistics(values_S: np.ndarray) -> dict[str, float]:
    """Return mean, std (n - 1; NaN for one), median, min and max over all networks."""
    return {
        "mean": float(values_S.mean()),
        "std": float(values_S.std(ddof=1)) if len(values_S) > 1 else math.nan,
        "median": float(np.median(values_S)),
        "min": float(values_S.min()),
        "max": float(values_S.max()),
    }


def plain(value: Json) -> Json:
    """Return data as JSON can hold it: numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
