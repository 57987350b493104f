"""Name of each checkpoint of a zoo, by which a generator can be told which one to imitate.

Shape suffix: N rows.
"""

import numpy as np

from dwf.zoo.store import Zoo

CHECKPOINT = "checkpoint"
"""Name of the condition; it is no column, and no two rows have the same."""
_PARTS = ("network", "epoch", "step")


def told_of(zoo: Zoo, name: str, *, rows: np.ndarray) -> np.ndarray | None:
    """Return what rows have of a condition: a column, or their names as checkpoints.

    Args:
        zoo: a zoo.
        name: of the condition.
        rows: which, int64_N.

    Returns:
        values_N; None where the zoo has no such column.
    """
    if name == CHECKPOINT:
        return _names(zoo, rows)
    return zoo.columns[name][rows] if name in zoo.columns else None


def _names(zoo: Zoo, rows: np.ndarray) -> np.ndarray:
    """Return `12`, or `12.30` of network 12 at epoch 30 where networks have several, words_N."""
    columns = [zoo.columns[name] for name in _PARTS if name in zoo.columns]
    first, *others = columns
    parts = [first, *(values for values in others if len(np.unique(values)) > 1)]
    told = zip(*(values[rows].tolist() for values in parts), strict=True)
    return np.array([".".join(map(str, numbers)) for numbers in told], dtype=np.str_)
