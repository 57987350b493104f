"""Mean and variance of networks, streamed in float64.

Shape suffixes: N networks, B networks of a block, D numbers of one network.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from dwf.errors import ShapeMismatch, TooFewNetworks
from dwf.ranks import world
from dwf.zoo.constants import refuse_varying_constants
from dwf.zoo.layout import Layout
from dwf.zoo.store import STREAM_BYTES, Zoo

Source = tuple[Zoo, np.ndarray]
Sources = Sequence[Source]
"""Networks of one or more zoos: (zoo, indices of rows)."""
MOST_PARTS = 64
"""Parts of a pass, so the ranks among which it can be shared. Other parts, other last bits."""
T = TypeVar("T")


@dataclass(eq=False)
class Moments:
    """Mean and variance of each number, gathered block by block in float64.

    Blocks are merged by Chan, Golub and LeVeque (1983), Eq. 2.1: nothing cancels, however far the
    mean lies from zero.
    """

    num_networks: int = 0
    mean_D: np.ndarray = field(default_factory=lambda: np.zeros(()))
    """Takes the shape of the first block."""
    _squares_D: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, weights_BD: np.ndarray) -> None:
        """Take a block of networks into account."""
        block_BD = weights_BD.astype(np.float64)
        block_mean_D = block_BD.mean(0)
        block_BD -= block_mean_D
        self._merge(len(block_BD), block_mean_D, np.einsum("bd,bd->d", block_BD, block_BD))

    def merge(self, other: "Moments") -> None:
        """Take other networks into account that were gathered apart."""
        if other.num_networks:
            self._merge(other.num_networks, other.mean_D, other._squares_D)

    def _merge(self, size: int, mean_D: np.ndarray, squares_D: np.ndarray) -> None:
        total = self.num_networks + size
        step_D = mean_D - self.mean_D
        self._squares_D = self._squares_D + squares_D
        self._squares_D += step_D**2 * (self.num_networks * size / total)
        self.mean_D = self.mean_D + step_D * (size / total)
        self.num_networks = total

    def copy_constants(self, layout: Layout, row_D: np.ndarray) -> None:
        """Set constants to those of one network: their mean would be nobody's.

        Args:
            layout: of the networks.
            row_D: a training network.
        """
        for entry in layout.constants:
            part = slice(entry.offset, entry.stop)
            self.mean_D[part], self._squares_D[part] = row_D[part], 0.0

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


def refuse_none(sources: Sources) -> None:
    """Refuse sources without a network; raises `TooFewNetworks`."""
    if not count_networks(sources):
        names = ", ".join(str(zoo.path) for zoo, _ in sources) or "no zoo"
        raise TooFewNetworks(
            f"{names}: 0 networks to learn from, at least 1 expected: train a zoo with more "
            "networks, or hold fewer of them out"
        )


def common_layout(sources: Sources) -> Layout:
    """Return the layout of all sources.

    Raises:
        TooFewNetworks: there is no network at all.
        ShapeMismatch: the zoos differ in layout.
    """
    refuse_none(sources)
    first = sources[0][0]
    for zoo, _ in sources:
        if zoo.layout.digest != first.layout.digest:
            raise ShapeMismatch(
                f"{zoo.path} has layout {zoo.layout.digest}, {first.path} {first.layout.digest}: "
                "this codec learns from zoos of one architecture; one that takes several widths is "
                "codec.kind = 'neurons' or 'functions' (name the other zoos in more_zoos), one for "
                "any is 'sane' (codec_zoos)"
            )
    return first.layout


def measure_moments(
    sources: Sources,
    max_bytes: int = STREAM_BYTES,
    *,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Moments:
    """Return mean and variance over the networks of all sources, in one pass shared by all ranks.

    Constants of the layout are the first network's.

    Every row is held to its checksum on the way. The last bit depends on `max_bytes`, not on the
    number of ranks.

    Args:
        sources: at least one network, of one layout.
        max_bytes: weights held in memory at a time.
        prepare: weights_BD -> the numbers of these networks that are measured instead.

    Raises:
        CorruptShard: a row does not match its checksum.
        ConfigError: a constant differs from network to network.
    """
    parts = parts_of(sources, max_bytes)

    def gather(part: int) -> Moments:
        gathered = Moments()
        for zoo, rows_B in parts[part]:
            weights_BD = zoo.read(rows_B)
            gathered.add(prepare(weights_BD) if prepare else weights_BD)
        return gathered

    total = Moments()
    for gathered in world().in_order(len(parts), gather):
        total.merge(gathered)
    for zoo, rows in sources:
        zoo.note_checked(rows)
    zoo, rows = next((zoo, rows) for zoo, rows in sources if len(rows))
    if zoo.layout.constants:
        like_D = zoo.read(rows[:1])[0]
        for each, its_rows in sources:
            refuse_varying_constants(each, its_rows, like_D=like_D)
        total.copy_constants(zoo.layout, like_D)
    return total


def parts_of(sources: Sources, max_bytes: int = STREAM_BYTES) -> list[list[Source]]:
    """Cut a pass over all networks into parts, see `cut`, of blocks of at most `max_bytes`."""
    return cut(blocks_of(sources, max_bytes))


def blocks_of(sources: Sources, max_bytes: int = STREAM_BYTES) -> list[Source]:
    """Cut a pass over all networks into blocks of at most `max_bytes` of weights, in order."""
    blocks = []
    for zoo, rows in sources:
        size = max(1, max_bytes // (4 * max(zoo.layout.size, 1)))
        blocks += [(zoo, rows[start : start + size]) for start in range(0, len(rows), size)]
    return blocks


def cut(blocks: list[T]) -> list[list[T]]:
    """Cut a pass into the parts that ranks share: as many for one rank as for many.

    What a part gives is as large as the sum, and is sent: so there are no more than are of use.
    """
    num = max(1, min(len(blocks), MOST_PARTS))
    edges = [len(blocks) * part // num for part in range(num + 1)]
    return [blocks[start:stop] for start, stop in itertools.pairwise(edges)]
