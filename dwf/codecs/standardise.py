"""Shift and scale of networks' numbers, as the training networks show them.

Shape suffixes: D numbers of a network, K numbers that a codec covers.
"""

import numpy as np

from dwf.zoo.layout import Layout
from dwf.zoo.moments import Moments

# A weight that no training network varies is scaled as if it varied by this share of its tensor's
# deviation: so neither does a held-out network's code explode, nor does a sample's noise show.
_LEAST_DEVIATION = 1e-3


def standardisation(
    moments: Moments, layout: Layout, *, standardise: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (shift_D, scale_D), float64, which bring networks to mean 0 and deviation 1.

    Args:
        moments: of the training networks.
        layout: of the numbers.
        standardise: `none`, `per_tensor` (each tensor's numbers together) or `per_weight`.
    """
    if standardise == "none":
        return np.zeros(layout.size), np.ones(layout.size)
    shift_D, scale_D = moments.mean_D.copy(), np.sqrt(moments.variance_D)
    for entry in layout.entries:
        part = slice(entry.offset, entry.stop)
        spread = np.sqrt(moments.variance_D[part].mean())
        if standardise == "per_weight":
            scale_D[part] = np.maximum(scale_D[part], _LEAST_DEVIATION * spread)
        else:
            mean_D = moments.mean_D[part]
            shift_D[part] = mean_D.mean()
            scale_D[part] = np.sqrt(spread**2 + mean_D.var())
    return shift_D, scale_D


def floored(scale_K: np.ndarray) -> np.ndarray:
    """Return scales that keep tensors that no training network varies near their value.

    None is 0: what no network varies at all is divided by 1.
    """
    spread = np.sqrt(np.mean(scale_K**2))
    return np.maximum(scale_K, _LEAST_DEVIATION * spread) if spread else np.ones_like(scale_K)
