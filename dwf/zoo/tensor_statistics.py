"""Statistics of each tensor over the networks of a zoo, in one pass, in float64.

The zoo is cut into blocks by its shards alone, and what the blocks give is merged in their order:
so any number of MPI ranks gives the same last bit.

Shape suffixes: B networks of a block, S numbers of one tensor, D numbers of one network.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dwf.errors import TooFewNetworks
from dwf.ranks import world
from dwf.zoo.store import Zoo

# Ranks meet after each block; a part of one stays in the cache (measured: three times as fast).
_BLOCK_BYTES, _PART_BYTES = 32 * 2**20, 2 * 2**20


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one tensor, over all its numbers in some networks."""

    count: int
    """How many numbers: networks times the tensor's size."""
    mean: float
    squares: float
    """Sum of the squared distances to the mean."""
    low: float
    high: float
    norms: float
    """Sum over the networks of the tensor's L2 norm."""
    networks: int

    @property
    def std(self) -> float:
        """Standard deviation of the numbers themselves (divided by n)."""
        return float(np.sqrt(self.squares / self.count)) if self.count else float("nan")

    @property
    def mean_norm(self) -> float:
        """L2 norm of the tensor, mean over the networks."""
        return self.norms / self.networks

    @classmethod
    def of(cls, values_BS: np.ndarray) -> "TensorStatistics":
        """Return the statistics of one tensor of some networks, float64."""
        mean = float(values_BS.mean())
        norms = float(np.sqrt(np.einsum("bs,bs->b", values_BS, values_BS)).sum())
        low, high = float(values_BS.min()), float(values_BS.max())
        squares = float(np.square(values_BS - mean).sum())
        return cls(
            values_BS.size,
            mean,
            squares=squares,
            low=low,
            high=high,
            norms=norms,
            networks=len(values_BS),
        )

    def merge(self, other: "TensorStatistics") -> "TensorStatistics":
        """Return the statistics of both; Chan, Golub and LeVeque (1983), Eq. 2.1."""
        count, step = self.count + other.count, other.mean - self.mean
        share = other.count / count
        return TensorStatistics(
            count,
            self.mean + step * share,
            squares=self.squares + other.squares + step**2 * self.count * share,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            norms=self.norms + other.norms,
            networks=self.networks + other.networks,
        )


def measure_tensors(
    zoo: Zoo, rows: np.ndarray, *, report: Callable[[int], None] = lambda done: None
) -> dict[str, TensorStatistics]:
    """Return the statistics of every tensor over some rows; the same on all MPI ranks.

    Every row is held to its checksum on the way.

    Args:
        zoo: the zoo.
        rows: indices of rows, ascending; at least one.
        report: called with the number of rows measured so far.

    Raises:
        TooFewNetworks: no rows.
        CorruptShard: a row does not match its checksum.
    """
    if not len(rows):
        raise TooFewNetworks(f"{zoo.path}: 0 rows to measure, at least 1 expected: see --split")
    blocks = _blocks(zoo, rows)
    total: list[TensorStatistics] = []
    done = 0
    measured = world().in_order(len(blocks), lambda index: _measure(zoo, blocks[index]))
    for block, parts in zip(blocks, measured, strict=True):
        total = _merge(total, parts)
        done += len(block)
        report(done)
    return dict(zip((entry.name for entry in zoo.layout.entries), total, strict=True))


def _blocks(zoo: Zoo, rows: np.ndarray) -> list[np.ndarray]:
    """Rows of one shard each, a bounded number of bytes."""
    ends = np.cumsum([shard.num_rows for shard in zoo.shards])
    of_shards = np.split(rows, np.searchsorted(rows, ends[:-1]))
    return [block for own in of_shards for block in _cut(own, zoo, _BLOCK_BYTES)]


def _cut(rows: np.ndarray, zoo: Zoo, num_bytes: int) -> list[np.ndarray]:
    step = max(1, num_bytes // max(4 * zoo.layout.size, 1))
    return [rows[i : i + step] for i in range(0, len(rows), step)]


def _measure(zoo: Zoo, rows: np.ndarray) -> list[TensorStatistics]:
    total: list[TensorStatistics] = []
    for part in _cut(rows, zoo, _PART_BYTES):
        weights_BD = zoo.read(part)
        tensors = (weights_BD[:, e.offset : e.stop] for e in zoo.layout.entries)
        total = _merge(total, [TensorStatistics.of(t_BS.astype(np.float64)) for t_BS in tensors])
    return total


def _merge(before: list[TensorStatistics], after: list[TensorStatistics]) -> list[TensorStatistics]:
    return [a.merge(b) for a, b in zip(before, after, strict=True)] if before else after
