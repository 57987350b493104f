"""How well a property can be told at all: from ties in the truth, and from the noise of labels.

Ties. Of n0 pairs of networks n1 have equal true values. A row that tells no two networks the same
has at most n0 - n1 concordant pairs, so its tau-b is at most

    (n0 - n1) / sqrt(n0 (n0 - n1)) = sqrt(1 - n1 / n0),

which is computed, not estimated.

Noise. A measured share y of m images is the network's expected share p and the luck of the images.
The oracle knows p, and no weights know the luck. With t the share of pairs of different y that the
oracle orders as y does, less those that it orders otherwise,

    tau-b of the oracle = t sqrt(1 - n1 / n0),

so that the ceiling of both is their product. Since p is not known, networks are drawn that could
be these: with v the variance that luck brings, the variance of p is that of y less v, and

    R2 of the oracle = 1 - v / variance of y

in closed form (as a reliability: Lord and Novick, Statistical Theories of Mental Test Scores, 1968,
section 3.3). Each p is then y, spread evenly over its step of 1 / m, and drawn in to the mean until
the variance is right; new luck is added, and tau is the mean over draws of it.

Luck is that of images that all networks share, where their answers to each are known (`luck`): what
it does to all networks alike moves none past another, and counts for nothing in v. Else it is
binomial, of each network by itself: m y is binomial (m, p), y (1 - y) / (m - 1) has the mean of its
variance, and v is its mean. Networks that have learnt one task share much of it, so that the
binomial ceiling is too low, the more so the less the networks differ.

A row learns from labels with the same luck, so it may pass the ceiling a little.

Shape suffixes: N networks, S draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import kendalltau

from dwf.errors import ConfigError
from dwf.predictors.scores import plain
from dwf.randomness import numpy_stream

Luck = Literal["shared", "own"]
_DRAWS = 100


@dataclass(frozen=True)
class Ceiling:
    """The best that a row can reach on one property of some networks."""

    ties: float | None
    """Largest tau-b that ties in the truth leave to a row without ties; None where all are one."""
    noise: float | None
    """Mean share of ordered pairs that an oracle has right, less those it has wrong; None of a
    property that is no share of images."""
    tau: float | None
    """Tau-b that can be reached: both together."""
    r2: float | None
    """R2 that can be reached; None of a property that is no share of images."""
    luck: Luck | None
    """Luck that it is of: of `shared` images, or of each network's `own`; None: of none."""


def ties_ceiling(truth_N: np.ndarray) -> float:
    """Return the largest tau-b of a row without ties: sqrt(1 - n1 / n0); NaN of equal values."""
    _, counts_G = np.unique(truth_N, return_counts=True)
    pairs = len(truth_N) * (len(truth_N) - 1)
    untied = pairs - int((counts_G * (counts_G - 1)).sum())
    return float(np.sqrt(untied / pairs)) if untied else float("nan")


def own_luck(share_N: np.ndarray, images: int) -> float:
    """Return the variance that binomial luck of each network's own brings to shares of images."""
    return float((share_N * (1 - share_N)).mean() / (images - 1))


def shared_luck(luck_SN: np.ndarray) -> float:
    """Return the variance among networks that the luck of shared images brings: mean over draws."""
    return float(luck_SN.astype(np.float64).var(axis=1).mean())


def noise_r2(share_N: np.ndarray, luck: float) -> float:
    """Return the R2 of an oracle that knows each expected share; at least 0, NaN of equal ones.

    Args:
        share_N: measured shares.
        luck: variance that luck brings to them.
    """
    variance = share_N.var()
    return max(0.0, 1 - luck / variance) if variance > 0 else float("nan")


def could_be(
    share_N: np.ndarray, images: int, *, luck: float, random: np.random.Generator
) -> np.ndarray:
    """Return expected shares that networks with these measured ones could have, drawn."""
    spread_N = share_N + random.uniform(-0.5, 0.5, len(share_N)) / images
    wanted = max(share_N.var() - luck, 0.0)
    factor = np.sqrt(wanted / spread_N.var()) if len(share_N) > 1 else 1.0
    return np.clip(spread_N.mean() + factor * (spread_N - spread_N.mean()), 0.0, 1.0)


def ceiling(
    truth_N: np.ndarray,
    images: int | None = None,
    *,
    luck_SN: np.ndarray | None = None,
    better_half: bool = False,
    seed: int = 0,
) -> Ceiling:
    """Return the ceilings of a property.

    Args:
        truth_N: its measured values.
        images: m, how many images each is a share of; None: of none.
        luck_SN: by how much they change with other images that all networks share, see
            `luck.draw_luck`; None: not known, each network's luck is its own.
        better_half: of the half with the highest values alone, where luck chose some of them: the
            networks are drawn whole, and then halved.
        seed: of the draws.

    Raises:
        ConfigError: shares of fewer than two images, or values that are no shares.
    """
    mine_N = truth_N[in_better_half(truth_N)] if better_half else truth_N
    ties = ties_ceiling(mine_N)
    if images is None:
        return Ceiling(plain(ties), noise=None, tau=plain(ties), r2=None, luck=None)
    if images < 2 or truth_N.min() < 0 or truth_N.max() > 1:
        raise ConfigError(
            f"{images} images, values from {truth_N.min():.4g} to {truth_N.max():.4g}: the noise "
            "of labels is known of shares, from 0 to 1, of two images or more; give None for others"
        )
    kind: Luck = "own" if luck_SN is None else "shared"
    if np.isnan(ties):
        return Ceiling(None, noise=None, tau=None, r2=None, luck=kind)
    variance = own_luck(truth_N, images) if luck_SN is None else shared_luck(luck_SN)
    random = numpy_stream(seed, "luck", images)
    draws = _draws(truth_N, images, variance=variance, luck_SN=luck_SN, random=random)
    noise, r2 = _of_oracle(draws, better_half)
    r2 = r2 if better_half else noise_r2(truth_N, variance)
    return Ceiling(
        plain(ties), noise=plain(noise), tau=plain(noise * ties), r2=plain(r2), luck=kind
    )


def in_better_half(values_N: np.ndarray) -> np.ndarray:
    """Return whether each network is among the better half: at least the median."""
    return values_N >= np.median(values_N)


def _draws(
    share_N: np.ndarray,
    images: int,
    *,
    variance: float,
    luck_SN: np.ndarray | None,
    random: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield expected shares of networks that could be these, and new measured ones."""
    for draw in range(_DRAWS if luck_SN is None else len(luck_SN)):
        expected_N = could_be(share_N, images, luck=variance, random=random)
        if luck_SN is None:
            yield expected_N, random.binomial(images, expected_N) / images
        else:
            measured_N = expected_N + luck_SN[draw] - luck_SN[draw].mean()
            yield expected_N, np.round(measured_N * images) / images


def _of_oracle(
    draws: Iterator[tuple[np.ndarray, np.ndarray]], better_half: bool
) -> tuple[float, float]:
    """Return the oracle's share of ordered pairs, and its R2: means over draws of networks."""
    found = []
    for expected_N, drawn_N in draws:
        if better_half:
            kept_N = in_better_half(drawn_N)
            expected_N, drawn_N = expected_N[kept_N], drawn_N[kept_N]
        ties = ties_ceiling(drawn_N)
        if np.isfinite(ties):
            varies = expected_N.min() < expected_N.max()  # else there is luck alone
            tau = kendalltau(expected_N, drawn_N).statistic if varies else 0.0
            r2 = 1 - np.square(expected_N - drawn_N).mean() / drawn_N.var()
            found.append((tau / ties, r2))
    if not found:
        return float("nan"), float("nan")
    noise, r2 = np.mean(found, axis=0)
    return float(noise), float(r2)
