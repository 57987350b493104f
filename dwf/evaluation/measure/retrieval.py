"""Retrieval: what looking up a training network gives where a generator is asked for one.

Shape suffixes: N training networks, S networks asked for.
"""

from collections.abc import Mapping

import numpy as np

from dwf.densities.conditions import are_words, mixture

_EQUALLY_NEAR = 1e-9


def retrieved(asked: Mapping[str, np.ndarray], held: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the training network that is nearest to what each sample was asked for, int64_S.

    Nearest by the squared differences of numbers, in standard deviations of the training networks',
    and by what a category lacks of its share, squared. Of networks that are equally near, samples
    take one after the other.

    Args:
        asked: condition -> what was asked for, numbers or words; each [S].
        held: condition -> what the training networks have; each [N].
    """
    (num,) = {len(values_S) for values_S in asked.values()}
    taken: dict[bytes, int] = {}
    found_S = np.empty(num, np.int64)
    for place in range(num):
        total_N = sum(_apart(values_S[place], held[name]) for name, values_S in asked.items())
        near = np.flatnonzero(total_N <= total_N.min() + _EQUALLY_NEAR)
        turn = taken.get(near.tobytes(), 0)
        taken[near.tobytes()] = turn + 1
        found_S[place] = near[turn % len(near)]
    return found_S


def _apart(wanted: float | str, held_N: np.ndarray) -> np.ndarray:
    """Return the squared distance of one condition to each training network."""
    if not are_words(held_N):
        return ((held_N.astype(np.float64) - wanted) / (held_N.std() or 1.0)) ** 2
    words = str(wanted)
    parts = [(words, 1.0)] if words in held_N else mixture(words)
    return (1 - sum(share * (held_N == category) for category, share in parts)) ** 2
