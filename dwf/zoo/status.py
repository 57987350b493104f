"""How far a zoo is, from its folder alone: also while it is trained, or after that was stopped."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dwf.errors import CorruptShard, DwfError, NotAZoo, ShapeMismatch
from dwf.files import read_json
from dwf.jobs import Jobs, Living, nobody_tells, read_jobs
from dwf.plain import Json
from dwf.run_folder import LEFTOVERS, holder
from dwf.system_errors import sentence_of
from dwf.zoo.facts import Facts
from dwf.zoo.shard import Shard, reason_of
from dwf.zoo.store import shard_files
from dwf.zoo.view import NAME, read_view


@dataclass(frozen=True)
class Status:
    """Contents of a zoo's folder."""

    folder: Path
    num_shards: int
    whole: list[int]
    """Shards that are there and can be opened; `verify` looks at their weights, too."""
    begun: dict[int, dict[str, Json]]
    """Shard -> the `share` of its training that is done and its `val_accuracy` so far; by those
    that work on it, or left it."""
    damaged: dict[int, str]
    """Shard -> what is wrong with it."""
    unread: dict[int, str]
    """Shard -> why the system does not open or read it; it may be sound."""
    num_rows: int
    num_networks: int
    num_diverged: int
    has_view: bool
    """Whether `zoo.h5` is there, which is written last."""
    holder: str | None
    """The process that works on the zoo."""
    jobs: Jobs | None = None
    """The cluster's jobs that it was submitted as."""
    leftovers: list[Path] = field(default_factory=list)
    """Partial files: of attempts in work, or that were killed."""

    @property
    def to_come(self) -> frozenset[int]:
        """Shards that jobs still make, or may make."""
        return self.jobs.units if self.jobs else frozenset()

    @property
    def missing(self) -> list[int]:
        """Shards that are not there and not begun."""
        there = {*self.whole, *self.begun, *self.damaged, *self.unread}
        return [index for index in range(self.num_shards) if index not in there]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to make."""
        return len(self.whole) == self.num_shards and self.has_view


def read_status(folder: Path, living: Living = nobody_tells) -> Status:
    """Return how far a zoo is; changes nothing.

    Args:
        folder: the zoo.
        living: asks Slurm.

    Raises:
        NotAZoo: the folder is not a zoo.
    """
    facts = Facts.read(folder)
    files = shard_files(folder, facts.num_shards)
    view = read_view(folder, facts, files=files)
    shards, damaged, unread = _listed(view[0]) if view else _open(files, facts)
    networks = [s.columns["network"] for s in shards.values() if "network" in s.columns]
    done = {*shards, *damaged, *unread}
    return Status(
        folder=folder,
        num_shards=len(files),
        whole=sorted(shards),
        begun={i: told for i, told in _progress(folder).items() if i not in done},
        damaged=damaged,
        unread=unread,
        num_rows=sum(shard.num_rows for shard in shards.values()),
        num_networks=len(np.unique(np.concatenate(networks))) if networks else 0,
        num_diverged=sum(len(shard.diverged) for shard in shards.values()),
        has_view=(folder / NAME).exists(),
        holder=holder(folder / "run"),
        jobs=_jobs(folder / "run", living),
        leftovers=sorted([*folder.glob(LEFTOVERS), *folder.glob(f"run/work/{LEFTOVERS}")]),
    )


_Looks = tuple[dict[int, Shard], dict[int, str], dict[int, str]]
"""Shards that are whole, damaged, unread."""


def _listed(shards: list[Shard]) -> _Looks:
    return dict(enumerate(shards)), {}, {}


def _open(files: list[Path], facts: Facts) -> _Looks:
    shards, damaged, unread = {}, {}, {}
    for index, file in enumerate(files):
        try:
            shards[index] = Shard(file, facts, index=index)
        except FileNotFoundError:
            continue
        except (CorruptShard, NotAZoo, ShapeMismatch) as error:
            damaged[index] = reason_of(error)
        except OSError as error:
            unread[index] = sentence_of(error)
    return shards, damaged, unread


def _progress(folder: Path) -> dict[int, dict[str, Json]]:
    told = {}
    for file in sorted(folder.glob("run/work/progress-*.json")):
        with suppress(FileNotFoundError, ValueError, DwfError):  # it may end while this looks
            told[int(file.stem.split("-")[1])] = read_json(file)
    return told


def _jobs(records: Path, living: Living) -> Jobs | None:
    try:
        return read_jobs(records, living)
    except DwfError:  # a zoo is none the worse for it
        return None
