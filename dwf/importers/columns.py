"""Columns of an imported zoo: what the sources tell of members, with one type for all shards."""

import math
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from dwf.errors import ConfigError
from dwf.importers.importer import Member, Value
from dwf.plain import as_text
from dwf.zoo.shard import Columns

RESERVED = (
    "network", "epoch", "step", "split", "batchnorm", "checksum", "member", "weights", "diverged",
)  # fmt: skip
"""Columns that dwf fills itself, and other parts of a shard."""
SPLITS = ("train", "val", "test")
_MOST = 2**63 - 1


def column_types(members: Sequence[Member]) -> dict[str, np.dtype]:
    """Return the type of each column that any member has, in the order in which they come.

    Whole numbers, numbers, or words; where some members lack a number it is NaN.
    """
    kinds: dict[str, list[Value]] = {}
    for member in members:
        for name, value in member.columns.items():
            kinds.setdefault(name, []).append(value)
    return {
        name: _type_of(values, is_whole=len(values) == len(members))
        for name, values in kinds.items()
        if name not in RESERVED
    }


def _type_of(values: Sequence[Value], is_whole: bool) -> np.dtype:
    if any(_is_word(value) for value in values):
        return np.dtype(f"<U{max(len(str(value)) for value in values)}")
    if is_whole and all(isinstance(value, int) for value in values):
        return np.dtype(np.int64)
    return np.dtype(np.float64)


def _is_word(value: Value) -> bool:
    """Whether a column that holds a value holds words: names, and whole numbers beyond int64."""
    return bool(value) if isinstance(value, str) else isinstance(value, int) and abs(value) > _MOST


def column_values(
    members: Sequence[Member], types: Mapping[str, np.dtype], *, measured: Collection[str]
) -> Columns:
    """Return the columns of some members, as the sources tell them.

    Args:
        members: those of some rows.
        types: the type of each column.
        measured: columns that dwf measures itself: what a source says is called `given_...`.
    """
    columns: Columns = {}
    for name, dtype in types.items():
        values = [member.columns.get(name, "") for member in members]
        if dtype.kind == "U":
            values = [str(value) for value in values]
        else:
            values = [math.nan if value == "" else value for value in values]
        own = f"given_{name}" if name in measured else name
        columns[_storable(own)] = np.array(values).astype(dtype) if values else np.zeros(0, dtype)
    return columns


def _storable(name: str) -> str:
    """The name of a column as HDF5 takes it, to which `/` is a folder and `.` this one."""
    return re.sub(r"[/\0]", "_", as_text(name)) if name.strip(".") else "_" * len(name)


def split_by_column(members: Sequence[Member], column: str) -> dict[str, str]:
    """Return the split of each run as a column tells it.

    Raises:
        ConfigError: a member lacks it, it says something else than train, val or test, or members
            of a run differ in it: runs are split, never members.
    """
    splits: dict[str, str] = {}
    for member in members:
        said = member.columns.get(column)
        if said not in SPLITS:
            raise ConfigError(
                f"split_column = {column!r}: {member.name} has {said!r}, expected train, val or "
                f"test; it has the columns {', '.join(member.columns) or 'none'}"
            )
        if splits.setdefault(member.run, str(said)) != said:
            raise ConfigError(
                f"split_column = {column!r}: members of run {member.run} are in {said} and in "
                f"{splits[member.run]}: networks of one run are near-copies, so a run is in one"
            )
    return splits
