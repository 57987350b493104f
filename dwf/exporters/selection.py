"""Which rows of a zoo are exported.

Shape suffixes: N rows of a zoo, R rows that are chosen.
"""

import numpy as np

from dwf.errors import ConfigError, CorruptShard, TooFewNetworks
from dwf.exporters.config import ExportConfig
from dwf.randomness import numpy_stream
from dwf.zoo.store import Zoo

ACCURACY = "val_accuracy"
"""Column by which the best are chosen; never one of test images."""


def rows_of(config: ExportConfig, zoo: Zoo) -> np.ndarray:
    """Return the rows that settings choose, int64: the best first, others in order.

    Raises:
        ConfigError: there is no such row, fewer networks than are asked for, or nothing says which
            are the best.
        TooFewNetworks: the zoo is empty.
    """
    if not len(zoo):
        raise TooFewNetworks(f"{zoo.path} holds no networks: there is nothing to export")
    if config.rows:
        wrong = [row for row in config.rows if row >= len(zoo)]
        if wrong:
            raise ConfigError(f"rows = {wrong[0]}: {zoo.path} has rows 0 to {len(zoo) - 1}")
        return np.array(config.rows, np.int64)
    if config.best is not None:
        return _best(zoo, config.best, report=config.report)
    if config.random is not None:
        rows_N = _enough(zoo, "random", config.random)
        drawn = numpy_stream(config.seed, "export").permutation(len(rows_N))[: config.random]
        return rows_N[np.sort(drawn)]
    return np.arange(len(zoo))


def _best(zoo: Zoo, count: int, *, report: str | None) -> np.ndarray:
    rows_N = _enough(zoo, "best", count)
    if ACCURACY in zoo.columns:
        known_N = zoo.columns[ACCURACY]
    else:
        from dwf.exporters.judged import judged, newest_on  # on use, as reports import much

        known_N = judged(report or newest_on(zoo), zoo).values(ACCURACY)
    order_N = np.argsort(-known_N[rows_N], kind="stable")  # NaN comes last
    return rows_N[order_N[:count]]


def _enough(zoo: Zoo, name: str, count: int) -> np.ndarray:
    """Return the rows of the networks at their last epoch; refuse to take more than there are."""
    rows_N = zoo.rows(epoch="last")
    if count > len(rows_N):
        raise ConfigError(
            f"{name} = {count}: {zoo.path} has {len(rows_N)} networks: give at most so many"
        )
    return rows_N


def refuse_not_finite(zoo: Zoo, rows_R: np.ndarray) -> None:
    """Hold rows to their checksums, and refuse weights that are not finite.

    Raises:
        CorruptShard: a row has some, or does not match its checksum; names the first.
    """
    for rows_B, weights_BD in zoo.stream(rows_R):
        wrong = rows_B[~np.isfinite(weights_BD).all(1)]
        if len(wrong):
            raise CorruptShard(
                f"{zoo.path}: row {wrong[0]} holds weights that are not finite: leave it out with "
                "--rows, or give --not-finite to export it as it is"
            )
