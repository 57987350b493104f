"""Rows held against the truth: each property, of all networks and of some, with ceilings.

Every row is scored on the same draws of networks, so that the interval of a difference of two rows
is that of pairs: what a draw does to both is not in it.

Shape suffixes: N networks, P properties, S draws.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dwf.errors import ConfigError
from dwf.plain import Json
from dwf.predictors.ceilings import Ceiling, ceiling, in_better_half
from dwf.predictors.scores import Score, Yardstick, draw_networks
from dwf.predictors.told import LEAST, Told, Truth
from dwf.randomness import seed_of

ALL, BETTER_HALF = "all", "better half"
CHOSEN, LAST = "chosen", "last"

Figures = dict[str, np.ndarray]
"""Metric -> values_S."""


@dataclass(frozen=True)
class Entry:
    """Figures of one row on one property of some of the test networks."""

    row: str
    """Name of the row."""
    subset: str
    """Networks: `all`, `better half`, `zoo NAME` or `architecture NAME`."""
    property: str
    """Name of the property."""
    step: str
    """Step of the row's training: `chosen` on validation networks, or the `last`."""
    n: int
    """Number of rows: of networks, or of their epochs."""
    scores: dict[str, Score]
    """Metric -> figure; `gain` is tau less that of the best baseline, on the same draws, and
    `val_tau` the tau of all validation networks, without an interval."""

    @property
    def tau(self) -> float | None:
        """Mean tau over seeds."""
        return self.scores["tau"].mean

    @property
    def val_tau(self) -> float:
        """Mean tau of the validation networks, by which rows are chosen; -1 where there is none."""
        score = self.scores.get("val_tau")
        return -1.0 if score is None or score.mean is None else score.mean

    @classmethod
    def from_json(cls, told: dict[str, Json]) -> "Entry":
        """Return it from plain data."""
        scores = {name: Score.from_json(one) for name, one in told["scores"].items()}
        return cls(**told | {"scores": scores})


@dataclass(frozen=True)
class Target:
    """One property of some of the test networks: how well it can be told, and whom to beat."""

    subset: str
    """Networks: `all`, `better half`, `zoo NAME` or `architecture NAME`."""
    property: str
    """Name of the property."""
    n: int
    """Number of rows: of networks, or of their epochs."""
    networks: int
    """Number of different networks."""
    images: int | None
    """Images behind a share; None of other properties."""
    mean: float
    """Mean of the true values."""
    std: float
    """Their standard deviation."""
    ceiling: Ceiling
    """The best that can be reached."""
    best_baseline: str | None
    """Row of the highest mean tau among the baselines."""

    @classmethod
    def from_json(cls, told: dict[str, Json]) -> "Target":
        """Return it from plain data."""
        return cls(**told | {"ceiling": Ceiling(**told["ceiling"])})


def subsets_of(truth: Truth, better_by: str) -> dict[str, np.ndarray]:
    """Return name -> indices of the networks that figures are of.

    Args:
        truth: the test networks.
        better_by: property of which the better half is taken; none is where it is not told.
    """
    count = len(truth.values_NP)
    found = {ALL: np.arange(count)}
    if better_by in truth.properties:
        values_N = truth.values_NP[:, truth.properties.index(better_by)]
        found[BETTER_HALF] = np.flatnonzero(in_better_half(values_N))
    for what, labels_N in (("zoo", truth.zoo_N), ("architecture", truth.architecture_N)):
        names = sorted(set(labels_N.tolist()))
        for name in names if len(names) > 1 else ():
            found[f"{what} {name}"] = np.flatnonzero(labels_N == name)
    return {name: places for name, places in found.items() if len(places) >= LEAST}


def compare(
    truth: Truth,
    told: Sequence[Told],
    *,
    baselines: Collection[str],
    better_by: str = "test_accuracy",
    seed: int = 0,
) -> tuple[list[Entry], list[Target]]:
    """Score all rows.

    Args:
        truth: the test networks.
        told: of each row and seed.
        baselines: names of the rows that are to be beaten.
        better_by: property of which the better half is taken.
        seed: of the draws.

    Raises:
        ConfigError: there are too few networks, or a row does not tell a number of each of them.
    """
    _refuse(truth, told)
    by_row = defaultdict(list[Told])
    for one in told:
        by_row[one.row].append(one)
    entries, targets = list[Entry](), list[Target]()
    by_val = _val_taus(truth, by_row)
    for subset, places in subsets_of(truth, better_by).items():
        counts_SN = draw_networks(truth.network_N[places], seed=seed_of(seed, subset))
        for p, name in enumerate(truth.properties):
            yardstick = Yardstick(truth.values_NP[places, p], counts_SN)
            found = list(_score(by_row, yardstick, places, p, subset))
            best = _best(found, baselines)
            entries += [_entry(one, best, subset, name, len(places)) for one in found]
            own = subset == BETTER_HALF and name == better_by
            targets.append(_target(truth, subset, places, p, own, best and best[0], seed))
    for entry in entries:
        if (entry.subset, entry.step) == (ALL, CHOSEN):
            entry.scores["val_tau"] = by_val[entry.row, entry.property]
    return entries, targets


_Found = tuple[str, str, list[Figures]]
"""Row, step, and figures under each seed."""


def _score(
    by_row: dict[str, list[Told]], yardstick: Yardstick, places: np.ndarray, p: int, subset: str
) -> Iterator[_Found]:
    for row, each in by_row.items():
        yield row, CHOSEN, [yardstick.scores(one.values_NP[places, p]) for one in each]
        last = [one.last_NP for one in each if one.last_NP is not None]
        if last and subset == ALL:
            yield row, LAST, [yardstick.scores(values_NP[places, p]) for values_NP in last]


def _val_taus(truth: Truth, by_row: dict[str, list[Told]]) -> dict[tuple[str, str], Score]:
    """Return (row, property) -> tau of the validation networks, over all seeds of the row."""
    found, once_SV = dict[tuple[str, str], Score](), np.ones((1, len(truth.val_values_VP)))
    for p, name in enumerate(truth.properties):
        yardstick = Yardstick(truth.val_values_VP[:, p], once_SV)
        for row, each in by_row.items():
            taus = [yardstick.scores(one.val_VP[:, p])["tau"] for one in each]
            found[row, name] = Score.of(taus)
    return found


def _mean_tau(by_seed: list[Figures]) -> np.ndarray:
    return np.mean([figures["tau"] for figures in by_seed], axis=0)


def _best(found: list[_Found], baselines: Collection[str]) -> tuple[str, np.ndarray] | None:
    """Return the best baseline and its tau_S."""
    taus = [
        (row, _mean_tau(by_seed))
        for row, step, by_seed in found
        if row in baselines and step == CHOSEN
    ]
    known = [one for one in taus if np.isfinite(one[1][0])]
    return max(known, key=lambda one: one[1][0], default=None)


def _entry(
    found: _Found, best: tuple[str, np.ndarray] | None, subset: str, name: str, count: int
) -> Entry:
    row, step, by_seed = found
    scores = {metric: Score.of([one[metric] for one in by_seed]) for metric in by_seed[0]}
    if best is not None and best[0] != row:
        scores["gain"] = Score.of([one["tau"] - best[1] for one in by_seed])
    return Entry(row, subset, property=name, step=step, n=count, scores=scores)


def _target(
    truth: Truth, subset: str, places: np.ndarray, p: int, own: bool, best: str | None, seed: int
) -> Target:
    """Return the target; `own`: the better half is by this property itself, so luck chose it."""
    whole_N, images = truth.values_NP[:, p], truth.images_P[p]
    values_N = whole_N[places]
    luck_SN = truth.luck.get(truth.properties[p])
    if luck_SN is not None and not own:
        luck_SN = luck_SN[:, places]
    found = ceiling(
        whole_N if own else values_N, images, luck_SN=luck_SN, better_half=own, seed=seed
    )
    return Target(
        subset,
        truth.properties[p],
        n=len(places),
        networks=len(np.unique(truth.network_N[places])),
        images=images,
        mean=float(f"{values_N.mean():.8g}"),
        std=float(f"{values_N.std():.8g}"),
        ceiling=found,
        best_baseline=best,
    )


def _refuse(truth: Truth, told: Sequence[Told]) -> None:
    if len(truth.values_NP) < LEAST:
        raise ConfigError(
            f"{len(truth.values_NP)} test networks: a report needs {LEAST} at least; raise "
            "split.test, or train a larger zoo"
        )
    if not told:
        raise ConfigError("no row told anything of the test networks: give at least one row")
    for one in told:
        for values_NP, wanted_NP in (
            (one.values_NP, truth.values_NP),
            (one.last_NP, truth.values_NP),
            (one.val_VP, truth.val_values_VP),
        ):
            if values_NP is None:
                continue
            if values_NP.shape != wanted_NP.shape:
                raise ConfigError(
                    f"row {one.row} (seed {one.seed}) tells values of shape {values_NP.shape}, "
                    f"expected {wanted_NP.shape}: networks and properties of the experiment"
                )
            if num_bad := int((~np.isfinite(values_NP)).any(1).sum()):
                raise ConfigError(
                    f"row {one.row} (seed {one.seed}) tells no number of {num_bad} of "
                    f"{len(values_NP)} networks: its training diverged, or a feature overflows; "
                    "leave the row out with --rows, or lower its learning rate"
                )
