"""The report: every set's numbers, summarised over all its networks, and written for people.

    reports/NAME/report.json   all numbers, of every network; equal runs write equal bytes
    reports/NAME/report.md     the tables;  report.html: one page with the figures in it;  *.png

Shape suffixes: S networks of a set, C axes of the map.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dwf.evaluation.measure import Limits, Measured
from dwf.evaluation.report.fits import FIT_COLUMNS, fit_rows
from dwf.evaluation.report.words import FIT_TEXT, HOW_TO_READ, MARK_RULES, MARKS_TEXT
from dwf.run_folder import write_json, write_text

TEST_COLUMNS = ("networks", "n", "accurate", "distant", "different mistakes", "all three")
TEST_COLUMNS += ("copies", "averages")
STATISTICS = ("own", "none", "reference", "recalibrated")
STATISTICS_COLUMNS = ("networks", "n", *STATISTICS)


@dataclass(frozen=True)
class NetworkSet:
    """One row of the report: a set of networks and all its numbers."""

    title: str
    family: str
    """`originals`, `held-out`, `samples`, or a baseline's family."""
    summary: dict[str, Any]
    """n, statistics of each measure, dispersion, the share that passes each test and of each kind
    (`copy`, `average`), its `mark` (name, why; see `marks`), and, of networks with BatchNorm,
    statistics of the accuracies with the running statistics that were compared. Of some sets
    `ensemble` (n, accuracy), of samples that were selected `selection` (how), of samples that were
    drawn on a condition `condition` (val_accuracy, guidance)."""
    networks: dict[str, list[Any]]
    """Measure -> one value for each network."""

    @property
    def share(self) -> float:
        """Share of good and novel networks."""
        return self.summary["good_and_novel"]

    @property
    def n(self) -> int:
        """How many networks."""
        return self.summary["n"]

    @property
    def label(self) -> str:
        """Its title, and in brackets what networks were asked for, how many drawn for each."""
        chosen, asked, words = self.summary.get("selection"), self.summary.get("condition"), []
        if asked:
            words.append(f"asked for {100 * asked['val_accuracy']:.4g} % on validation images")
        if chosen:
            words.append(f"{chosen['drawn'] / chosen['kept']:.3g} drawn for each one kept")
        return f"{self.title} ({', '.join(words)})" if words else self.title

    @property
    def scored(self) -> str:
        """The accuracy that counts: `test_accuracy`, or `val_accuracy` where choices are made."""
        return "test_accuracy" if "test_accuracy" in self.summary else "val_accuracy"

    @property
    def accuracy_S(self) -> np.ndarray:  # noqa: N802  a shape, not a word
        """That accuracy of every network."""
        return self.values(self.scored)

    @property
    def mark(self) -> str:
        """Its mark, in a word; "-" where it has none."""
        return self.summary.get("mark", {}).get("name", "-")

    @property
    def is_baseline(self) -> bool:
        """Whether it is made from training networks without a generator."""
        return self.family not in ("originals", "held-out", "samples")

    def values(self, measure: str) -> np.ndarray:
        """Return one measure of all networks; NaN where a number was not finite."""
        numbers = self.networks[measure]
        return np.array([math.nan if v is None else v for v in numbers], float)


@dataclass(frozen=True)
class Report:
    """An evaluation's outcome."""

    name: str
    config: dict[str, Any]
    limits: dict[str, float]
    """See `novelty.Limits`."""
    sets: tuple[NetworkSet, ...]
    """Originals, held-out networks, samples, baselines."""
    headline: tuple[str, ...]
    """Sentences on what the numbers say."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Facts of what was evaluated: zoo, data, alignment, generators, samples."""
    map_share: tuple[float, ...] = ()
    """Share of the training networks' variance along each axis of the map."""
    fits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Generator -> losses and likelihoods of training and held-out networks; see `fits`."""

    def of(self, family: str) -> list[NetworkSet]:
        """Return the sets of a family, in order."""
        return [one for one in self.sets if one.family == family]

    @property
    def columns(self) -> tuple[str, ...]:
        """The main table's heading."""
        accuracy = f"{self.config['split']} accuracy (%)"
        first = ("networks", "n", "mark", "good and novel", accuracy, "median", "best", "worst")
        return (*first, "distance", "overlap", "dispersion")

    @property
    def table(self) -> list[tuple[str, ...]]:
        """The main table's cells, without the heading."""
        return [_cells(one) for one in self.sets]

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes under the main table: ensembles, and how samples were drawn."""
        found = [(one, one.summary["ensemble"]) for one in self.sets if "ensemble" in one.summary]
        notes = []
        if found:
            each = "; ".join(f"{one.title} {100 * e['accuracy']:.2f} %" for one, e in found)
            notes.append(
                f"{self.config['split'].capitalize()} accuracy of ensembles of {found[0][1]['n']} "
                f"networks each, drawn from the set (mean of their logits): {each}."
            )
        for one in self.sets:
            if one.summary.get("condition"):
                notes.append(_on_condition(one.title, one.summary["condition"]))
            if one.summary.get("selection"):
                notes.append(_on_selection(one.title, one.summary["selection"]))
        return tuple(notes)

    @property
    def tests_table(self) -> list[tuple[str, ...]]:
        """Cells of the table of tests passed, without the heading `TEST_COLUMNS`."""
        tests = ("accurate", "distant", "different", "good_and_novel", "copy", "average")
        return [
            (one.label, str(one.n), *(_percent(one.summary.get(test)) for test in tests))
            for one in self.sets
        ]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Each marked set with its mark and why."""
        marked = [(one.title, one.summary["mark"]) for one in self.sets if "mark" in one.summary]
        return tuple(f"{title}: {mark['name']}. {mark['why']}" for title, mark in marked)

    @property
    def statistics_table(self) -> list[tuple[str, ...]]:
        """Accuracies with other running statistics of BatchNorm, under `STATISTICS_COLUMNS`.

        Empty where networks have no BatchNorm, or nothing was compared.
        """
        return [
            (
                one.title,
                str(one.n),
                *(accuracy_cell(one.summary["batchnorm"].get(s)) for s in STATISTICS),
            )
            for one in self.sets
            if "batchnorm" in one.summary
        ]

    @property
    def statistics_text(self) -> str:
        """Sentence on what the table of running statistics compares."""
        config = self.config["batchnorm"]
        return (
            f"{self.config['split'].capitalize()} accuracy (%) with other running statistics of "
            "BatchNorm. Own: those in the networks' rows, from their training (or, of samples, "
            "written by their generator). None: mean 0 and variance 1. Reference: the mean over "
            "the training networks. Recalibrated: re-estimated for each network on "
            f"{self.facts['evaluation']['images for BatchNorm']} training images, never on "
            "validation or test images. Everywhere else in this report originals and held-out "
            f"networks are scored with their own, samples and baselines: {config['score']}. "
            "Running statistics take no part in distances, spread, map and noise."
        )

    @property
    def limits_text(self) -> str:
        """The three tests in words, with their numbers."""
        limits = Limits(**self.limits)
        accuracy, overlap = 100 * limits.accuracy, limits.overlap
        text = (
            f"Accurate: accuracy of at least {accuracy:.2f} % (the training networks' mean "
            "minus two standard deviations). Distant: at least "
            f"{limits.distance / limits.unit:.3f} of the unit of distance from the nearest "
            "training network (1st percentile of the training networks' own leave-one-out "
            f"distances; the unit is {limits.unit:.4g}). Different mistakes: overlap with that "
            f"network of at most {overlap:.3f} (99th percentile of the training networks' own). "
            "Copies and averages are those of the rules under `What the sets are`."
        )
        if limits.overlap_tests_nothing:
            text += (
                " This percentile is 1, because training networks give exactly the wrong answers "
                "of their nearest others: the third test tests nothing."
            )
        return text

    def save(self, folder: Path) -> None:
        """Write `report.json` and `report.md`."""
        content = {
            "name": self.name,
            "headline": list(self.headline),
            "config": self.config,
            "facts": self.facts,
            "limits": self.limits,
            "map_share": list(self.map_share),
            "fits": self.fits,
            "sets": [vars(one) for one in self.sets],
        }
        write_json(folder / "report.json", plain(content))
        write_text(folder / "report.md", self.markdown())

    @classmethod
    def load(cls, folder: Path) -> "Report":
        """Return the report that `save` wrote."""
        content = json.loads((folder / "report.json").read_text())
        content["sets"] = tuple(NetworkSet(**one) for one in content["sets"])
        content["headline"] = tuple(content["headline"])
        content["map_share"] = tuple(content["map_share"])
        return cls(**content)

    def markdown(self) -> str:
        """Return the report as Markdown."""
        parts = [f"# Report: {self.name}", *self.headline]
        parts += [markdown_table(self.columns, self.table), *self.notes]
        parts += ["## Which tests are passed", self.limits_text]
        parts += [markdown_table(TEST_COLUMNS, self.tests_table)]
        if self.reasons:
            parts += ["## What the sets are", MARKS_TEXT, _bullets(MARK_RULES)]
            parts += ["These sets:", _bullets(self.reasons)]
        if fit_rows(self.fits):
            parts += ["## Training against held-out networks", FIT_TEXT]
            parts += [markdown_table(FIT_COLUMNS, fit_rows(self.fits))]
        if self.statistics_table:
            parts += ["## Running statistics of BatchNorm", self.statistics_text]
            parts += [markdown_table(STATISTICS_COLUMNS, self.statistics_table)]
        parts += ["## How to read this", _bullets(HOW_TO_READ)]
        parts += ["## What was evaluated"]
        for title, facts in self.facts.items():
            rows = [(key, str(value)) for key, value in facts.items()]
            parts += [f"### {title}", markdown_table(("fact", "value"), rows)]
        return "\n\n".join(parts) + "\n"


def network_set(
    title: str,
    family: str,
    measured: Measured,
    limits: Limits,
    zoo_spread: float,
    split: str,
    labels: dict[str, np.ndarray],
    **more: Any,
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
    """
    where = measured.distance_S, measured.overlap_S
    passed = limits.passed(measured.accuracy_S, *where) | limits.kinds(*where, measured.reach_S)
    numbers = {
        f"{split}_accuracy": measured.accuracy_S,
        "val_accuracy": measured.val_accuracy_S,
        f"{split}_loss": measured.loss_S,
        "distance": measured.distance_S,
        "distance_ratio": measured.distance_S / limits.unit,
        "overlap": measured.overlap_S,
        "highest_overlap": measured.highest_overlap_S,
        "reach": measured.reach_S,
    }
    summary: dict[str, Any] = {"n": len(measured.distance_S)}
    summary |= {name: statistics(values_S) for name, values_S in numbers.items()}
    summary["dispersion"] = measured.spread / zoo_spread
    summary |= {test: float(passed_S.mean()) for test, passed_S in passed.items()} | more
    if measured.compared:
        summary["batchnorm"] = {
            source: statistics(accuracy_S) for source, accuracy_S in measured.compared.items()
        }
    compared = {f"{split}_accuracy_{s}": values_S for s, values_S in measured.compared.items()}
    columns = labels | numbers | compared | passed
    networks = {name: values_S.tolist() for name, values_S in columns.items()}
    networks["map"] = measured.map_SC.tolist()
    return NetworkSet(title, family, plain(summary), plain(networks))


def statistics(values_S: np.ndarray) -> dict[str, float]:
    """Return mean, std (n - 1; NaN for one), median, min and max over all networks."""
    return {
        "mean": float(values_S.mean()),
        "std": float(values_S.std(ddof=1)) if len(values_S) > 1 else math.nan,
        "median": float(np.median(values_S)),
        "min": float(values_S.min()),
        "max": float(values_S.max()),
    }


def plain(value: Any) -> Any:
    """Return data as JSON can hold it: numbers that are not finite become None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _on_condition(title: str, asked: dict[str, float]) -> str:
    return (
        f"{title} was drawn on a condition: networks of {100 * asked['val_accuracy']:.4g} % on "
        f"validation images, with a guidance of {asked['guidance']:g}. That is a part of what the "
        "generator has learnt; its dispersion is held against that of the whole zoo."
    )


def _on_selection(title: str, chosen: dict[str, Any]) -> str:
    rounds, broken = chosen.get("rounds", 1), chosen.get("unusable", 0)
    text = f"{title} is a selection ({chosen['kind']}): {chosen['kept']} networks were kept of "
    text += f"{chosen['drawn']} that were drawn"
    text += f" in {rounds} rounds" if rounds > 1 else ""
    text += f" ({broken} of them unusable)" if broken else ""
    text += ", the most accurate on validation images"
    if "val_accuracy_drawn" in chosen:
        means = ", ".join(f"{100 * mean:.2f} %" for mean in chosen["val_accuracy_drawn"])
        kept = f"{100 * chosen['val_accuracy_kept']:.2f} %"
        text += f"; the mean accuracy on these is {means} of all drawn, {kept} of the kept"
        text += " (rounds in order)" if rounds > 1 else ""
    return text + "."


def _cells(one: NetworkSet) -> tuple[str, ...]:
    accuracy = one.summary[one.scored]
    return (
        one.label,
        str(one.n),
        one.mark,
        _percent(one.share),
        accuracy_cell(accuracy),
        *(f"{100 * accuracy[key]:.2f}" for key in ("median", "max", "min")),
        _number(one.summary["distance_ratio"]["median"]),
        _number(one.summary["overlap"]["mean"]),
        _number(one.summary["dispersion"]),
    )


def accuracy_cell(found: dict[str, float] | None) -> str:
    """Return mean +- standard deviation in percent."""
    if found is None:
        return "-"
    spread = "" if found["std"] is None else f" +- {100 * found['std']:.2f}"
    return f"{100 * found['mean']:.2f}{spread}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def markdown_table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table, its first column to the left and the others to the right."""
    rule = "|".join(["---"] + ["---:"] * (len(heading) - 1))
    lines = [" | ".join(heading), rule, *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)
