"""Constants in the rows of a zoo: buffers that are no running statistics.

Shape suffixes: D numbers of one network.
"""

import numpy as np

from dwf.errors import ConfigError
from dwf.zoo.store import Zoo


def refuse_varying_constants(zoo: Zoo, rows: np.ndarray, *, like_D: np.ndarray) -> None:
    """Refuse constants that are not the same in all networks: one network's cannot stand for all.

    Args:
        zoo: holds the networks.
        rows: which of them.
        like_D: a row with the constants that all should have.

    Raises:
        ConfigError: names the first tensor and row that has others.
    """
    for entry in zoo.layout.constants:
        part = slice(entry.offset, entry.stop)
        for row in rows.tolist():
            if not np.array_equal(zoo.map_row(row)[part], like_D[part], equal_nan=True):
                raise ConfigError(
                    f"{zoo.path}: the buffer {entry.name} of row {row} has other numbers than that "
                    "of other networks, and one that is no running statistics is taken for a "
                    "constant of all; make it a parameter (frozen, if it is not to learn) and "
                    "train the zoo again"
                )
