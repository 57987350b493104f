"""Images made smaller by the mean over the area that each new pixel covers.

Shape suffixes: A images of an array, C channels, H height, W width, S side of the smaller images.
"""

from collections.abc import Iterator

import numpy as np

_IMAGES_AT_ONCE = 4096


def resize(images_ACHW: np.ndarray, side: int) -> np.ndarray:
    """Return smaller images: each pixel is the mean of the part of the image that it covers.

    Where `side` divides the image's that is the mean over blocks of pixels; else the pixels at a
    block's border count by the share of them that lies in it. Exact, then rounded to whole numbers,
    halves up.

    Args:
        images_ACHW: uint8.
        side: height and width of what is returned, at most the images' own.

    Returns:
        uint8, [A, C, S, S].
    """
    overlaps = [_overlaps(old, side) for old in images_ACHW.shape[2:]]
    smaller_ACSS = np.empty((*images_ACHW.shape[:2], side, side), np.uint8)
    for rows in _blocks(len(images_ACHW)):
        smaller_ACSS[rows] = _means(images_ACHW[rows], *overlaps)
    return smaller_ACSS


def _means(images_ACHW: np.ndarray, down_SH: np.ndarray, across_SW: np.ndarray) -> np.ndarray:
    area = images_ACHW.shape[2] * images_ACHW.shape[3]
    # Sums of whole numbers below 2**53 are exact in float64, whose products are the fast ones.
    sums_ACSS = down_SH @ images_ACHW.astype(np.float64) @ across_SW.T
    return (2 * sums_ACSS + area) // (2 * area)


def _overlaps(old: int, new: int) -> np.ndarray:
    """Return how much of each old pixel each new one covers, in parts of 1 / `new`: [new, old]."""
    new_edges, old_edges = np.arange(new + 1) * old, np.arange(old + 1) * new
    ends = np.minimum(new_edges[1:, None], old_edges[None, 1:])
    starts = np.maximum(new_edges[:-1, None], old_edges[None, :-1])
    return (ends - starts).clip(0).astype(np.float64)


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _IMAGES_AT_ONCE):
        yield slice(start, start + _IMAGES_AT_ONCE)
