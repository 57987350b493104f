"""Ensembles: the mean of the logits of several networks of a set.

All sets of a report are compared by ensembles of one size, since a larger one is better; who is in
it is drawn, as the first networks of a set may be its best.

Shape suffixes: S networks of a set, M images of the split, K classes.
"""

import threading
from collections.abc import Sequence

import numpy as np

from dwf.randomness import numpy_stream

FEWEST = 5
"""A set of fewer networks makes no ensemble."""


def ensemble_size(counts: Sequence[int]) -> int:
    """Return how many networks of each set vote: all of the smallest that has `FEWEST`; or 0."""
    return min((count for count in counts if count >= FEWEST), default=0)


def draw_members(count: int, size: int) -> np.ndarray | None:
    """Return which networks of a set vote, bool_S; None where the set is too small.

    Args:
        count: S.
        size: networks of an ensemble; 0: no ensemble.
    """
    if not 0 < size <= count:
        return None
    voting_S = np.zeros(count, bool)
    voting_S[numpy_stream(0, "ensemble", count).permutation(count)[:size]] = True
    return voting_S


def vote_accuracy(votes_MK: np.ndarray, labels_M: np.ndarray) -> float:
    """Return the share of images that an ensemble gets right; where votes are not finite, none."""
    finite_M = np.isfinite(votes_MK).all(1)
    return float((finite_M & (votes_MK.argmax(1) == labels_M)).mean())


class SumInOrder:
    """A sum whose terms are added in their order, whichever is there first.

    So it is the same to the last bit, and only terms that came early are held.
    """

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self._next, self._early = 0, dict[int, np.ndarray | None]()
        self._lock = threading.Lock()

    def add(self, index: int, term: np.ndarray | None) -> None:
        """Take term 0, 1, 2, ... into account; None is nothing, but was to be waited for."""
        with self._lock:
            self._early[index] = term
            while self._next in self._early:
                found = self._early.pop(self._next)
                self._next += 1
                if found is not None:
                    self.total = found if self.total is None else self.total + found
