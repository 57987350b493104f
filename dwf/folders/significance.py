"""Tests whether two sets of networks differ in a number: paired where both are the same networks.

Numbers of networks are seldom normal (accuracies pile up at the top, distances have long tails), so
the tests are of ranks; those of yes and no are exact.

Shape suffixes: N networks.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, fisher_exact, mannwhitneyu, wilcoxon

_LEAST = 2  # numbers of a side


@dataclass(frozen=True)
class Outcome:
    """One test."""

    name: str
    """The test in words; empty where none was made."""
    p: float | None = None
    """Two-sided probability of such a difference, or a larger one, if there is none; None where no
    test was made."""
    n: tuple[int, int] = (0, 0)
    """How many numbers of each side it is of."""


def tell_apart(
    a_N: np.ndarray,
    b_N: np.ndarray,
    *,
    networks: tuple[Sequence[Hashable], Sequence[Hashable]] = ((), ()),
) -> Outcome:
    """Test whether numbers of two sets of networks differ; those that are not finite are left out.

    Args:
        a_N: numbers of the first set, float64, or bool for yes and no.
        b_N: of the second, as many or not.
        networks: which network each number is of. Where both sides have the same ones, each once,
            the test is paired; else it is not. Empty: that is not known.

    Returns:
        The test: of pairs the Wilcoxon signed-rank test (yes and no: McNemar's, exact), else the
        Mann-Whitney test (yes and no: Fisher's).
    """
    is_share = a_N.dtype == bool
    a_N, b_N = a_N.astype(float), b_N.astype(float)
    order = _order(*networks)
    if order is not None:
        a_N, b_N = a_N[order[0]], b_N[order[1]]
        both_N = np.isfinite(a_N) & np.isfinite(b_N)
        return _paired(a_N[both_N], b_N[both_N], is_share)
    return _unpaired(a_N[np.isfinite(a_N)], b_N[np.isfinite(b_N)], is_share)


def _order(a: Sequence[Hashable], b: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the places of the same networks on both sides; None where they do not pair up."""
    if not a or len(a) != len(b) or len(set(a)) < len(a) or set(a) != set(b):
        return None
    places = {network: place for place, network in enumerate(b)}
    return np.arange(len(a)), np.array([places[network] for network in a])


def _paired(a_N: np.ndarray, b_N: np.ndarray, is_share: bool) -> Outcome:
    n = (len(a_N), len(b_N))
    if len(a_N) < _LEAST:
        return Outcome("")
    if np.array_equal(a_N, b_N):
        return Outcome("paired: all equal", n=n)
    if is_share:
        gained, lost = int((b_N > a_N).sum()), int((b_N < a_N).sum())
        return Outcome("paired (McNemar)", float(binomtest(gained, gained + lost).pvalue), n=n)
    return Outcome("paired (Wilcoxon)", float(wilcoxon(b_N - a_N).pvalue), n=n)


def _unpaired(a_N: np.ndarray, b_N: np.ndarray, is_share: bool) -> Outcome:
    n = (len(a_N), len(b_N))
    if min(n) < _LEAST:
        return Outcome("")
    if is_share:
        table = [[each.sum(), len(each) - each.sum()] for each in (a_N, b_N)]
        return Outcome("unpaired (Fisher)", float(fisher_exact(table)[1]), n=n)
    if len(np.unique(np.concatenate([a_N, b_N]))) == 1:
        return Outcome("unpaired: all equal", n=n)
    return Outcome("unpaired (Mann-Whitney)", float(mannwhitneyu(a_N, b_N).pvalue), n=n)
