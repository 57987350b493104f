"""Limits: what makes a network good and novel, from the training networks alone.

Shape suffixes: N training networks, S networks of a set, L hidden layers whose units are seen,
V = 2 + L measures of novelty.
"""

from dataclasses import asdict, dataclass

import numpy as np

from dwf.plain import Json

NEAR_COPY = 0.25
"""Ratio of a measure of novelty to the training networks' own below which a network is a near-copy
of one of them, or of its units."""
HALF_WAY = 0.5
"""Ratio below which a network is nearer to one training network than half way to the next: what
else it may have is not a place of its own."""
DRAWN_IN = 0.84
"""Reach (distance to the training networks' mean, in the median of theirs) below which a network
is an average: half way, as a ratio, from an independent network (1) to an average of two (0.71)."""


@dataclass(frozen=True)
class Novelty:
    """How far networks are from the training networks, in each way that counts."""

    distance_S: np.ndarray
    """Distance of weights, scales balanced and units matched: the smaller of those to the training
    network nearest by weights and to the one most alike in behaviour, float64."""
    behaviour_S: np.ndarray
    """Distance of logits to the training network that is most alike; see `behaviour`, float64."""
    units_SL: np.ndarray
    """Distance of units: for each layer the median over its units of that to the nearest training
    unit; see `units`, float64."""

    @property
    def all_SV(self) -> np.ndarray:  # noqa: N802  a shape, not a word
        """All measures side by side."""
        return np.column_stack([self.distance_S, self.behaviour_S, self.units_SL])


@dataclass(frozen=True)
class Limits:
    """Limits that make a network *good and novel*, all from the training networks alone.

    Novel is what is in no measure nearer to the training networks than 99 % of them are to each
    other. With a single run there is no such limit, and nothing is novel.
    """

    accuracy: float
    """At least: mean of their accuracies minus two standard deviations."""
    distance: float | None
    """At least: 1st percentile of their leave-one-out distances by weights; None: a single run."""
    unit: float
    """Median of these distances: a distance is reported as a ratio to it."""
    behaviour: float | None
    """At least: 1st percentile of their leave-one-out distances in behaviour."""
    behaviour_unit: float
    """Median of these."""
    units: tuple[float | None, ...]
    """At least: 1st percentile of their leave-one-out distances of units, of each layer."""
    units_unit: tuple[float, ...]
    """Median of these, of each layer."""
    layers: tuple[str, ...] = ()
    """Names of these layers."""
    left_out: str = ""
    """Groups whose units are not compared, in words; empty where there are none."""

    @classmethod
    def of(
        cls,
        accuracy_N: np.ndarray,
        novelty: Novelty,
        *,
        layers: tuple[str, ...] = (),
        left_out: str = "",
        single_run: bool = False,
    ) -> "Limits":
        """Return the limits that training networks set.

        Args:
            accuracy_N: of all training networks.
            novelty: of some of them at least, leave one out.
            layers: whose units are seen.
            left_out: see the field.
            single_run: whether all rows are of one network, so that there are no limits.
        """
        percentile_V = np.percentile(novelty.all_SV, 1, axis=0).tolist()
        median_V = np.median(novelty.all_SV, axis=0).tolist()
        limits = [None] * len(percentile_V) if single_run else percentile_V
        return cls(
            accuracy=float(accuracy_N.mean() - 2 * accuracy_N.std(ddof=1)),
            distance=limits[0],
            unit=median_V[0],
            behaviour=limits[1],
            behaviour_unit=median_V[1],
            units=tuple(limits[2:]),
            units_unit=tuple(median_V[2:]),
            layers=layers,
            left_out=left_out,
        )

    @property
    def single_run(self) -> bool:
        """Whether all training rows are of one network: then nothing is novel."""
        return self.distance is None

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Measures that test nothing: more than 1 % of the training networks are at 0."""
        named = {"weights": self.distance, "behaviour": self.behaviour}
        named |= {
            f"units of {name}": limit for name, limit in zip(self.layers, self.units, strict=True)
        }
        return tuple(name for name, limit in named.items() if limit == 0)

    def passed(self, accuracy_S: np.ndarray, novelty: Novelty) -> dict[str, np.ndarray]:
        """Return which networks pass each test and all of them (`good_and_novel`), bool_S."""
        above_SV = ~self._below(novelty) & np.isfinite(novelty.all_SV)
        if self.single_run:
            above_SV[:] = False
        tests = {
            "accurate": accuracy_S >= self.accuracy,
            "distant": above_SV[:, 0],
            "unlike": above_SV[:, 1],
            "new_units": above_SV[:, 2:].all(1),
        }
        return tests | {"good_and_novel": np.logical_and.reduce(list(tests.values()))}

    def ratios(self, novelty: Novelty) -> np.ndarray:
        """Return each measure over the training networks' median, [S, V]; NaN where that is 0."""
        median_V = np.array([self.unit, self.behaviour_unit, *self.units_unit], float)
        return novelty.all_SV / np.where(median_V > 0, median_V, np.nan)

    def kinds(self, novelty: Novelty, *, reach_S: np.ndarray) -> dict[str, np.ndarray]:
        """Return which networks are a `copy`, which an `average`, bool_S; the others are far.

        A near-copy is below a limit and below `NEAR_COPY` of the training networks' own median, in
        weights, behaviour or the units of a layer. A copy is a near-copy, or is below a limit and
        below `HALF_WAY` without being drawn in. An average is drawn in to the mean of the training
        networks. No network is both, and no copy is novel.
        """
        with np.errstate(invalid="ignore"):
            ratio_SV, below_SV = self.ratios(novelty), self._below(novelty)
            near_copy_S = (below_SV & (ratio_SV < NEAR_COPY)).any(1)
            average_S = ~near_copy_S & (reach_S < DRAWN_IN)
            copy_S = near_copy_S | (~average_S & (below_SV & (ratio_SV < HALF_WAY)).any(1))
        return {"copy": copy_S, "average": average_S}

    def _below(self, novelty: Novelty) -> np.ndarray:
        """Return which measures are below their limits, [S, V]; all of a single run."""
        limits = [np.inf if v is None else v for v in (self.distance, self.behaviour, *self.units)]
        return novelty.all_SV < np.array(limits)

    def to_json(self) -> dict[str, Json]:
        """Return plain data."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, told: dict[str, Json]) -> "Limits":
        """Return what `to_json` wrote."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in told.items()})
