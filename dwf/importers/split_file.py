"""Splits from a JSON file: which runs are trained on, chosen by and reported on.

    {"train": [...], "val": [...], "test": [...]}

A list names runs or members, as paths in the source or longer ones that end so; or it stands under
`path`, beside others, as in the splits that are published with the CNN Wild Park.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dwf.errors import ConfigError
from dwf.files import read_json
from dwf.importers.columns import SPLITS
from dwf.importers.importer import Member
from dwf.metrics import logger
from dwf.plain import Json

_PATHS = "path"


def with_splits(members: list[Member], file: Path) -> list[Member]:
    """Return members with a column `split`, as a file tells it of them or of their run.

    Args:
        members: as the importer lists them.
        file: JSON.

    Raises:
        ConfigError: no such file, a list that is none, a run in two splits or in none.
    """
    if not file.is_file():
        raise ConfigError(f"split_file = {str(file)!r}: no such file")
    told = read_json(file, cure="give lists of runs as train, val and test", error=ConfigError)
    run_of = {name: one.run for one in members for name in _names(one)}
    splits: dict[str, str] = {}
    others = 0
    for split in SPLITS:
        for name in _listed(told.get(split, []), file, split):
            run = next((run_of[tail] for tail in _tails(name) if tail in run_of), None)
            others += run is None
            if run is not None and splits.setdefault(run, split) != split:
                raise ConfigError(
                    f"{file}: members of run {run} are in {splits[run]} and in {split}: networks "
                    "of one run are near-copies, so a run is in one"
                )
    missing = [one.name for one in members if one.run not in splits]
    if missing:
        raise ConfigError(
            f"{file} tells nothing of {missing[0]} (and {len(missing) - 1} more): list each run as "
            "train, val or test, or leave members out by `where`"
        )
    if others:
        logger.info("%s: %d names are not of this source", file, others)
    return [replace(one, columns={**one.columns, "split": splits[one.run]}) for one in members]


def _names(member: Member) -> tuple[str, ...]:
    return member.name, PurePosixPath(member.name).with_suffix("").as_posix(), member.run


def _listed(told: Json, file: Path, split: str) -> list[str]:
    names = told.get(_PATHS) if isinstance(told, dict) else told
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{file}: {split} is {type(told).__name__}, a list of names is expected, or one under "
            f"`{_PATHS}`"
        )
    return names


def _tails(name: str) -> Iterator[str]:
    """Yield a path, then its ends, the longest first."""
    parts = PurePosixPath(name).parts
    for first in range(len(parts)):
        yield "/".join(parts[first:])
