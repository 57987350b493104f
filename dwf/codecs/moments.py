"""Mean and variance of networks, streamed in float64.

Shape suffixes: N networks, B networks of a block, D numbers of one network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwf.errors import ShapeMismatch, TooFewNetworks
from dwf.zoo.layout import Layout
from dwf.zoo.store import STREAM_BYTES, Zoo

Sources = Sequence[tuple[Zoo, np.ndarray]]
"""Networks of one or more zoos: (zoo, indices of rows)."""


@dataclass(frozen=True)
class Moments:
    """Mean and variance of each number over N networks."""

    num_networks: int
    mean_D: np.ndarray
    """float64."""
    variance_D: np.ndarray
    """float64, of the population: divided by N."""


def count_networks(sources: Sources) -> int:
    """Return N: how many networks the sources hold together."""
    return sum(len(rows) for _, rows in sources)


def common_layout(sources: Sources) -> Layout:
    """Return the layout of all sources.

    Raises:
        TooFewNetworks: there is no network at all.
        ShapeMismatch: the zoos differ in layout.
    """
    if not count_networks(sources):
        names = ", ".join(str(zoo.path) for zoo, _ in sources) or "no zoo"
        raise TooFewNetworks(
            f"{names}: 0 networks to learn from, at least 1 expected: train a zoo with more "
            "networks, or hold fewer of them out"
        )
    first = sources[0][0]
    for zoo, _ in sources:
        if zoo.layout.digest != first.layout.digest:
            raise ShapeMismatch(
                f"{zoo.path} has layout {zoo.layout.digest}, {first.path} {first.layout.digest}: "
                "one codec learns from zoos of one architecture"
            )
    return first.layout


def measure_moments(sources: Sources, max_bytes: int = STREAM_BYTES) -> Moments:
    """Return mean and variance over the networks of all sources, in one pass.

    Blocks are merged by Chan, Golub and LeVeque's update (1983), which loses no digits to large
    means. Every row is held to its checksum on the way.

    Args:
        sources: at least one network, of one layout.
        max_bytes: weights held in memory at a time.

    Raises:
        CorruptShard: a row does not match its checksum.
    """
    num_weights = sources[0][0].layout.size
    count, mean_D, squares_D = 0, np.zeros(num_weights), np.zeros(num_weights)
    for zoo, rows in sources:
        for _, weights_BD in zoo.stream(rows, check=True, max_bytes=max_bytes):
            block_BD = weights_BD.astype(np.float64)
            block_mean_D = block_BD.mean(0)
            block_BD -= block_mean_D
            step_D, size = block_mean_D - mean_D, len(block_BD)
            squares_D += np.einsum("bd,bd->d", block_BD, block_BD)
            squares_D += step_D**2 * (count * size / (count + size))
            count += size
            mean_D += step_D * (size / count)
    return Moments(count, mean_D, squares_D / max(count, 1))
