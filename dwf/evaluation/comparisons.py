"""Samples beside the networks that their generators learnt from, and what is made of these.

A generator that learnt from ten networks is judged by these ten: copies are copies of them, limits
and unit of distance are theirs, and baselines are made of them. A report has a comparison for each
choice of training networks that generators learnt from; originals and held-out networks are of the
first, that with all of them.

Shape suffixes: S networks of a set.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dwf import preemption
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.frames import open_unaligned
from dwf.evaluation.measure import (
    FAMILIES,
    Arm,
    Baseline,
    Drawn,
    Measured,
    Yardstick,
    average_of,
    measure_coherence,
    retrieved,
)
from dwf.evaluation.report import NetworkSet, marked, network_set
from dwf.generators.subset import rows_learnt_from, subset_of
from dwf.metrics import Progress
from dwf.plain import Json
from dwf.zoo.checkpoint import told_of
from dwf.zoo.provenance import ASKED
from dwf.zoo.store import Zoo


@dataclass(frozen=True)
class Comparison:
    """Samples whose generators learnt from the same networks, and what they are held against."""

    yardstick: Yardstick
    """Yardstick of the networks that were learnt from."""
    samples: tuple[Zoo, ...]
    baselines: tuple[tuple[str, Baseline], ...]
    """Made of these networks, each with its family."""
    plain: Zoo | None = None
    """These networks as they were trained, of which `plain_averages` are made; see the settings."""
    plain_averages: tuple[Baseline, ...] = ()
    arms: tuple[Arm, ...] = ()
    """Null arms that are made of parts of these networks."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """Name of a zoo of samples -> its title."""
    subset: str = ""
    """Which of the training networks these are, see `Subset.label`; empty for all."""


def comparisons_of(
    config: EvaluateConfig,
    whole: Yardstick,
    *,
    samples: Sequence[Zoo],
    titles: Mapping[str, str],
) -> list[Comparison]:
    """Return the comparisons of a report, that with all training networks first.

    Args:
        config: which baselines.
        whole: yardstick of all training networks.
        samples: zoos of generated networks.
        titles: name of each of them -> its title; see `titles_of`.

    Raises:
        ConfigError, TooFewNetworks: see `Subset.rows_of` and `Yardstick`.
    """
    asked = config.plain_averages
    plain = open_unaligned(whole.zoo, wanted_by="plain_averages") if asked else None
    parts: dict[bytes, tuple[Yardstick, list[Zoo], str]]
    parts = {whole.training.rows.tobytes(): (whole, [], "")}
    for each in samples:
        rows, subset = rows_learnt_from(whole.zoo, each), subset_of(each)
        if rows.tobytes() not in parts:
            parts[rows.tobytes()] = whole.of_rows(rows), [], subset.label if subset else ""
        parts[rows.tobytes()][1].append(each)
    return [
        Comparison(
            yardstick,
            tuple(mine),
            baselines=tuple(_baselines(config, yardstick)),
            plain=plain,
            plain_averages=_plain_averages(config, yardstick) if plain else (),
            arms=tuple(yardstick.arms(config.count, seed=config.seed)),
            titles=titles,
            subset=subset,
        )
        for yardstick, mine, subset in parts.values()
    ]


def _baselines(config: EvaluateConfig, yardstick: Yardstick) -> Iterator[tuple[str, Baseline]]:
    for family, kind in FAMILIES.items():
        for draw in kind.draws:
            for baseline in draw(config, len(yardstick.training)):
                yield family, baseline


def _plain_averages(config: EvaluateConfig, yardstick: Yardstick) -> tuple[Baseline, ...]:
    """Return the averages of the same networks, without alignment."""
    aligned = average_of(config, len(yardstick.training))
    return tuple(replace(one, title=f"{one.title}, plain") for one in aligned)


def measure_all(config: EvaluateConfig, comparisons: Sequence[Comparison]) -> list[NetworkSet]:
    """Return all sets of a report, with their marks.

    Args:
        config: which held-out networks, and the seed of baselines.
        comparisons: see `comparisons_of`.
    """
    zoo, is_alone = comparisons[0].yardstick.zoo, len(comparisons) == 1
    held_out = zoo.rows(split=config.split, epoch="last")
    total = 1 + bool(len(held_out))
    total += sum(
        2 * len(one.samples) + len(one.baselines) + len(one.plain_averages) + len(one.arms)
        for one in comparisons
    )
    total += sum(bool(asked_of(each)) for one in comparisons for each in one.samples)
    sets: list[NetworkSet] = []
    with Progress(f"evaluate {zoo.name}", total, unit="sets of networks") as progress:
        for one in comparisons:
            measuring, mine = _Measuring(config, one, is_alone=is_alone), list[NetworkSet]()
            for found in measuring.sets(held_out if one is comparisons[0] else None):
                mine.append(found)
                progress.update(len(sets) + len(mine))
                if preemption.is_asked():
                    preemption.stop()
            sets += marked(mine)
    return sets


class _Measuring:
    """Measures the sets of one comparison.

    Args:
        config: see `measure_all`.
        comparison: which samples, which training networks.
        is_alone: whether the report has no other, so that it need not be told.
    """

    def __init__(self, config: EvaluateConfig, comparison: Comparison, *, is_alone: bool):
        self.config, self.comparison = config, comparison
        self.yardstick, self.zoo = comparison.yardstick, comparison.yardstick.zoo
        self._told = {} if is_alone else {"learnt_from": len(self.yardstick.training)}
        if comparison.subset:
            self._told["subset"] = comparison.subset
        steps = self.zoo.is_one_network and "step" in self.zoo.columns
        self._numbers = self.zoo.columns["step" if steps else "network"]
        self._rows = comparison.yardstick.training.rows

    def sets(self, held_out: np.ndarray | None) -> Iterator[NetworkSet]:
        """Yield all sets, in the order of the report.

        Args:
            held_out: rows of held-out networks; None in a comparison without these and originals.
        """
        if held_out is not None:
            rows = self._rows[self.yardstick.nearness.judged_J]
            yield self._set(
                "originals (training)",
                "originals",
                self.yardstick.originals,
                self._numbers[rows],
                told=self._by(rows),
                exchanged=self._exchanged(self.zoo, rows, self.yardstick.originals),
            )
            if len(held_out):
                measured = self.yardstick.measure_zoo(self.zoo, held_out, compare=True)
                yield self._set(
                    "held-out networks",
                    "held-out",
                    measured,
                    self._numbers[held_out],
                    told=self._by(held_out) | self._own(held_out),
                    exchanged=self._exchanged(self.zoo, held_out, measured),
                )
        nearest = {}
        for each in self.comparison.samples:
            rows = np.arange(len(each))
            measured = self.yardstick.measure_zoo(each, rows, compare=True)
            nearest[self._called(each)] = measured.nearest_S
            network_S, more = each.columns["network"], _how_drawn(each)
            told = asked_of(each)
            more["source"] = each.name
            more["exchanged"] = self._exchanged(each, rows, measured)
            yield self._set(self._called(each), "samples", measured, network_S, told=told, **more)
        for family, baseline in self.comparison.baselines:
            yield self._of_baseline(family, baseline)
        for baseline in self.comparison.plain_averages:
            yield self._of_baseline("average", baseline, self.comparison.plain)
        for arm in self.comparison.arms:
            measured = self.yardstick.measure_arm(arm)
            yield self._set(self._titled(arm.title), "parts", measured)
        for name, nearest_S in nearest.items():
            copies = self.yardstick.measure_copies(nearest_S)
            yield self._set(f"nearest originals of {name}", "nearest", copies)
        for each in self.comparison.samples:
            yield from self._retrieval(each)

    def _exchanged(self, zoo: Zoo, rows: np.ndarray, measured: Measured) -> dict[str, Json]:
        """Return what is left of a set's accuracy when its networks' layers are exchanged."""
        yardstick = self.yardstick
        part = yardstick.data.part(yardstick.split)
        counts = part.labels[part.index].bincount()
        return measure_coherence(
            zoo,
            rows,
            accuracy_S=measured.accuracy_S,
            chance=int(counts.max()) / int(counts.sum()),
            seed=self.config.seed,
            score=lambda weights_BD: yardstick.scorer.accuracy(
                weights_BD, yardstick.batchnorm.score
            ),
        )

    def _retrieval(self, samples: Zoo) -> Iterator[NetworkSet]:
        """Yield the training networks nearest to what samples were asked for, if they were."""
        told = asked_of(samples)
        held = self._having(told, self._rows)
        asked = {name: told[name] for name in held}
        if not asked:
            return
        copies = self.yardstick.measure_copies(retrieved(asked, held))
        title = f"nearest to what {self._called(samples)} was asked for"
        condition = _how_drawn(samples)["condition"]
        yield self._set(title, "retrieval", copies, told=asked, condition=condition)

    def _own(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return what rows have of conditions that are measured by neighbours, if any is asked."""
        names = {name for each in self.comparison.samples for name in asked_of(each)}
        return self._having(sorted(names - {"val_accuracy"}), rows)

    def _having(self, names: Iterable[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return what rows of the zoo have of those conditions that a row can have."""
        told = {name: told_of(self.zoo, name, rows=rows) for name in names}
        return {name: values for name, values in told.items() if values is not None}

    def _by(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return what rows of the zoo have in the column that sets are split by."""
        by = self.config.by
        return {} if by is None else {by: self.zoo.columns[by][rows]}

    def _of_baseline(self, family: str, baseline: Baseline, plain: Zoo | None = None) -> NetworkSet:
        """Measure a baseline of the training networks, or of these as they lie in another zoo."""
        yardstick = self.yardstick
        training = yardstick.training
        drawn = Drawn(
            baseline,
            replace(training, zoo=plain) if plain else training,
            deviation_D=yardstick.deviation_K,
            seed=self.config.seed,
        )
        compare = FAMILIES[family].is_compared
        measured = yardstick.measure_drawn(drawn, compare, in_frame=plain is None)
        return self._set(self._titled(baseline.title), family, measured)

    def _called(self, samples: Zoo) -> str:
        return self.comparison.titles[samples.name]

    def _titled(self, title: str) -> str:
        subset = self.comparison.subset
        return f"{title} ({subset})" if subset else title

    def _set(
        self,
        title: str,
        family: str,
        measured: Measured,
        network_S: np.ndarray | None = None,
        *,
        told: Mapping[str, np.ndarray] | None = None,
        source: str = "",
        **more: Json,
    ) -> NetworkSet:
        yardstick, told = self.yardstick, told or {}
        more["profile"] = yardstick.profile(measured, self.config.bar)
        labels = {} if network_S is None else {"network": network_S}
        nearest_S = self._rows[measured.nearest_S]
        labels["nearest"] = self._numbers[nearest_S]
        own = self._own(nearest_S) if family == "held-out" else {}
        names = told if family in ("samples", "retrieval") else own
        labels |= {f"{ASKED}{name}": told[name] for name in names}
        for name, values_S in self._having(names, nearest_S).items():
            labels[f"nearest_{name}"] = values_S
        if self.config.by is not None:
            by = self._by(nearest_S) | dict(told)
            labels[f"by_{self.config.by}"] = by[self.config.by]
        if measured.ensemble is not None:
            more["ensemble"] = {"n": yardstick.ensemble, "accuracy": measured.ensemble}
        return network_set(
            title,
            family,
            measured=measured,
            limits=yardstick.limits,
            zoo_spread=yardstick.originals.spread,
            split=self.config.split,
            labels=labels,
            more=more | self._told,
            source=source,
        )


def _how_drawn(zoo: Zoo) -> dict[str, Json]:
    """How the networks of a zoo of samples were drawn, where that says less than all it learnt."""
    told, found = zoo.facts.sampled, {}
    if told and told.selection:
        found["selection"] = told.selection
    if told and told.condition is not None:
        found["condition"] = {
            "generator": told.generator,
            "asked": told.condition,
            "guidance": told.guidance,
        }
    if told and told.temperature is not None:
        found["temperature"] = told.temperature
    if told and told.autoguidance is not None:
        found["autoguidance"] = told.autoguidance
    return found


def asked_of(samples: Zoo) -> dict[str, np.ndarray]:
    """Return condition -> what each network of a zoo of samples was asked for."""
    told = samples.facts.sampled
    names = (told.condition or ()) if told else ()
    return {name: samples.columns[f"{ASKED}{name}"] for name in names}
