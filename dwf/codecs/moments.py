"""Mean and variance of networks, streamed in float64.

Shape suffixes: N networks, B networks of a block, D numbers of one network.
"""

from collections.abc import Sequence

import numpy as np

from dwf.errors import ShapeMismatch, TooFewNetworks
from dwf.zoo.layout import Layout
from dwf.zoo.store import STREAM_BYTES, Zoo

Sources = Sequence[tuple[Zoo, np.ndarray]]
"""Networks of one or more zoos: (zoo, indices of rows)."""


class Moments:
    """Mean and variance of each number, gathered block by block in float64.

    Blocks are merged by Chan, Golub and LeVeque (1983), Eq. 2.1: nothing cancels, however far the
    mean lies from zero.
    """

    def __init__(self) -> None:
        self.num_networks = 0
        self.mean_D: np.ndarray = np.zeros(())  # takes the shape of the first block
        self._squares_D: np.ndarray = np.zeros(())

    def add(self, weights_BD: np.ndarray) -> None:
        """Take a block of networks into account."""
        block_BD = weights_BD.astype(np.float64)
        block_mean_D = block_BD.mean(0)
        block_BD -= block_mean_D
        size, total = len(block_BD), self.num_networks + len(block_BD)
        step_D = block_mean_D - self.mean_D
        squares_D = self._squares_D + np.einsum("bd,bd->d", block_BD, block_BD)
        self._squares_D = squares_D + step_D**2 * (self.num_networks * size / total)
        self.mean_D = self.mean_D + step_D * (size / total)
        self.num_networks = total

    @property
    def variance_D(self) -> np.ndarray:  # noqa: N802  a shape, not a word
        """Variance of the networks themselves (divided by n)."""
        return self._squares_D / self.num_networks

    @property
    def deviation_D(self) -> np.ndarray:  # noqa: N802
        """Standard deviation that the networks let expect (by n - 1); NaN for one network."""
        if self.num_networks < 2:
            return np.full_like(self.mean_D, np.nan)
        return np.sqrt(self._squares_D / (self.num_networks - 1))

    @property
    def spread(self) -> float:
        """Root mean square distance of the networks to their mean (n - 1); NaN for one."""
        return float(np.sqrt(np.square(self.deviation_D).sum()))


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

    Every row is held to its checksum on the way.

    Args:
        sources: at least one network, of one layout.
        max_bytes: weights held in memory at a time.

    Raises:
        CorruptShard: a row does not match its checksum.
    """
    gathered = Moments()
    for zoo, rows in sources:
        for _, weights_BD in zoo.stream(rows, check=True, max_bytes=max_bytes):
            gathered.add(weights_BD)
    return gathered
