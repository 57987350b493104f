"""Labels as they stand in the user's own data, and the classes 0, 1, ... that they become.

Shape suffixes: A rows of an array.
"""

import numpy as np

from dwf.datasets.config import Label
from dwf.errors import ConfigError

_MOST = 2.0**63
# Rows of a class on average: where there are fewer, labels are measurements.
_LEAST_ROWS, _LEAST_ROWS_OF_FLOATS = 2, 4


def relabelled(
    train: np.ndarray, test: np.ndarray | None, *, what: str
) -> tuple[np.ndarray, np.ndarray | None, tuple[Label, ...]]:
    """Return labels of the training and the test part as classes, and what the classes stand for.

    Classes are numbered in the order of the labels: numbers by size, words by the alphabet.

    Args:
        train: whole numbers, words or booleans, `[A]` or `[A, 1]`.
        test: of the test part, the same; None where there is none.
        what: the data, for errors.

    Returns:
        (training classes int64 [A], test classes int64 [A] or None, label of each class).

    Raises:
        ConfigError: they are measurements, missing, or of another form; or the test part has a
            label that no training row has.
    """
    train_A = _flat(train, what)
    labels, classes_A = np.unique(train_A, return_inverse=True)
    _refuse_measurements(train_A, labels, what=what)
    named = tuple(_plain(label) for label in labels.tolist())
    if test is None:
        return classes_A.astype(np.int64), None, named
    test_A = _flat(test, what)
    places = {label: place for place, label in enumerate(named)}
    unknown = sorted({str(label) for label in map(_plain, test_A.tolist()) if label not in places})
    if unknown:
        raise ConfigError(
            f"{what}: the test part has the label {unknown[0]}, which no training row has: mend "
            "the labels, or cut the parts anew"
        )
    tested_A = np.array([places[_plain(label)] for label in test_A.tolist()], np.int64)
    return classes_A.astype(np.int64), tested_A, named


def _flat(labels: np.ndarray, what: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ConfigError(
            f"{what}: its labels have shape {list(labels.shape)}: give one label for each row"
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ConfigError(
            f"{what}: {(~np.isfinite(labels)).sum()} labels are missing: leave them out"
        )
    if labels.dtype.kind not in "iubfUS":
        raise ConfigError(f"{what}: its labels are of type {labels.dtype}: give numbers or words")
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8", "backslashreplace")
    if labels.dtype.kind == "f" and np.abs(labels).max() >= _MOST:
        raise ConfigError(
            f"{what}: it has the label {np.abs(labels).max():g}: give smaller numbers"
        )
    return labels


def _refuse_measurements(labels_A: np.ndarray, distinct: np.ndarray, *, what: str) -> None:
    """Raise where labels are quantities, which dwf's networks do not learn."""
    if labels_A.dtype.kind == "U":
        return
    is_float = labels_A.dtype.kind == "f"
    least = _LEAST_ROWS_OF_FLOATS if is_float else _LEAST_ROWS
    is_broken = is_float and not (distinct == np.round(distinct)).all()
    if is_broken or (len(distinct) > 2 and len(distinct) * least > len(labels_A)):
        raise ConfigError(
            f"{what}: its labels are measurements ({len(distinct)} values in {len(labels_A)} rows, "
            f"such as {distinct[0]:g}): dwf trains classifiers, no regression"
        )


def _plain(label: float | int | bool | str) -> Label:
    return label if isinstance(label, str) else int(label)
