"""Find every damaged file of a zoo: all bytes of all shards, and the view `zoo.h5`.

A file that the system does not open or read is told apart: it may be sound.

Threads share a rank's shards, ranks share the zoo's: checksums and page faults run outside
Python's lock. Weights are mapped, never loaded, so memory does not grow with the zoo.
"""

import errno
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dwf.errors import CorruptShard, NotAZoo, ShapeMismatch
from dwf.ranks import world
from dwf.system_errors import sentence_of
from dwf.systems import num_cores
from dwf.zoo.facts import Facts
from dwf.zoo.shard import Shard, reason_of
from dwf.zoo.store import shard_files
from dwf.zoo.view import NAME, View
from dwf.zoo.zeros import zero_counts

# Shards of a batch are looked at together; progress is told, and ranks meet, between batches.
_BATCH_SHARDS, _BATCH_BYTES = 64, 2**30
_PART_BYTES = 16 * 2**20
_ROWS_NAMED = 10
MISSING = "missing"
_OTHER_SHARDS = "it is not made of the shards that are there"


@dataclass(frozen=True)
class Damage:
    """A file of a zoo that is not as it was written, or that cannot be read."""

    file: Path
    reason: str
    is_readable: bool = True
    """Whether its bytes were seen: a file that the system does not open or read may be sound."""


def find_damage(
    folder: Path, threads: int | None = None, *, report: Callable[[int], None] = lambda done: None
) -> list[Damage]:
    """Hold every byte of a zoo to its checksums; under MPI each rank takes a share of the shards.

    Args:
        folder: the zoo.
        threads: of each rank; default: one a core, or one where there are several ranks.
        report: called with the number of shards looked at so far.

    Returns:
        What is missing, damaged or unreadable, in the order of the shards, `zoo.h5` last; the same
        on all ranks.

    Raises:
        NotAZoo: the folder is not a zoo.
    """
    facts = Facts.read(folder)
    files = shard_files(folder, facts.num_shards)
    ranks = world()
    threads = threads or (num_cores() if ranks.size == 1 else 1)
    batches = ranks.on_first(_batches, files, ranks.size)  # a zoo in work grows meanwhile
    damages, done = [], 0
    with ThreadPoolExecutor(threads) as pool:
        checker = Checker(folder, facts, files=files, run=pool.map if threads > 1 else map)
        found = ranks.in_order(len(batches), lambda index: checker.check(batches[index]))
        for batch, damaged in zip(batches, found, strict=True):
            damages += damaged
            done += len(batch)
            report(done)
    return ranks.on_first(_join, damages, checker)


def _join(damages: list[Damage], checker: "Checker") -> list[Damage]:
    """Damages of shards, then what is wrong with the view."""
    of_view = [damage for damage in damages if damage.file == checker.view_path]
    of_shards = [damage for damage in damages if damage.file != checker.view_path]
    if any(damage.reason == MISSING for damage in of_shards):
        return of_shards  # the view is written after the last of them
    return of_shards + (checker.check_view() + of_view)[:1]


def _batches(files: list[Path], num_ranks: int) -> list[range]:
    """Runs of shards; small enough that every rank has some."""
    most = _BATCH_SHARDS if num_ranks == 1 else max(1, len(files) // (4 * num_ranks))
    batches, start, size = [], 0, 0
    for index, file in enumerate(files):
        own = _size_of(file)
        if index > start and (index - start >= most or size + own > _BATCH_BYTES):
            batches.append(range(start, index))
            start, size = index, 0
        size += own
    return [*batches, range(start, len(files))]


def _size_of(file: Path) -> int:
    """Size of a file; 0 of one that is missing or hidden, which is told when it is opened."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _unreadable(file: Path, error: OSError) -> Damage:
    """Return a file that is missing, or what the system says against reading it."""
    if error.errno == errno.ENOENT:
        return Damage(file, MISSING)
    return Damage(file, f"cannot be read: {sentence_of(error)}", is_readable=False)


class Checker:
    """Checks shards of one zoo.

    Args:
        folder: the zoo.
        facts: what it says of itself.
        files: its shards, in order.
        run: as `map`, perhaps in several threads.
    """

    def __init__(
        self, folder: Path, facts: Facts, *, files: list[Path], run: Callable[..., Iterable]
    ):
        self._facts, self._files, self._run = facts, files, run
        self._is_pruned = facts.recipe is not None and facts.recipe.prune is not None
        self.view_path, self._view = folder / NAME, None
        self._view_damage = Damage(self.view_path, MISSING)
        try:
            self._view = View(folder, facts)
        except CorruptShard as error:
            if self.view_path.exists():
                self._view_damage = Damage(self.view_path, reason_of(error))
        except OSError as error:
            self._view_damage = _unreadable(self.view_path, error)

    def check(self, batch: range) -> list[Damage]:
        """Return what is wrong with some shards, in their order; the view, too, if they tell."""
        looks = list(self._run(self._look, batch))
        parts = [(look, rows) for look in looks for rows in look.parts]
        checked = self._run(lambda part: _wrong_rows(part[0].shard, part[1]), parts)
        for (look, _), rows in zip(parts, checked, strict=True):
            look.take(rows)
        return [damage for look in looks for damage in self._damages(look)]

    def check_view(self) -> list[Damage]:
        """Return what is wrong with `zoo.h5`, but for what the shards tell."""
        if self._view is None:
            return [self._view_damage]
        same = len(self._files) == len(self._view.shards)
        return [] if same else [Damage(self.view_path, _OTHER_SHARDS)]

    def _look(self, index: int) -> "_Look":
        """Open a shard; check its rows unless they are so many that threads should share them."""
        file = self._files[index]
        fits = self._view is not None and self._view.fits(index, file)
        try:
            if fits:
                shard = self._view.shard(index, file, only="checksum")
            else:
                shard = Shard(file, self._facts, index=index)
        except (CorruptShard, NotAZoo, ShapeMismatch) as error:
            return _Look(index, file, damage=Damage(file, reason_of(error)))
        except OSError as error:
            return _Look(index, file, damage=_unreadable(file, error))
        step = max(1, _PART_BYTES // max(4 * shard.num_weights, 1))
        starts = range(0, shard.num_rows, step)
        parts = [np.arange(i, min(i + step, shard.num_rows)) for i in starts]
        look = _Look(index, file, shard=shard, fits=fits or self._view is None)
        if len(parts) == 1:
            look.take(_wrong_rows(shard, parts.pop()))
        look.parts = parts
        return look

    def _damages(self, look: "_Look") -> list[Damage]:
        if look.damage is not None:
            return [look.damage]
        if look.wrong:
            return [Damage(look.file, _in_words(look.wrong))]
        unpruned = _unpruned(self._facts, look) if self._is_pruned else []
        if unpruned:
            return [Damage(look.file, _in_words(unpruned, "have fewer zeros than were pruned"))]
        return [] if look.fits else [Damage(self.view_path, _OTHER_SHARDS)]


@dataclass
class _Look:
    """Findings on a shard so far."""

    index: int
    file: Path
    damage: Damage | None = None
    """Finding on the file as a whole."""
    shard: Shard | None = None
    fits: bool = True
    """Whether it is the file that the view was made of."""
    parts: list[np.ndarray] = field(default_factory=list)
    """Rows still to be checked."""
    wrong: list[int] = field(default_factory=list)

    def take(self, found: "np.ndarray | OSError") -> None:
        """Take what was found of some of its rows, see `_wrong_rows`."""
        if isinstance(found, OSError):
            self.damage = _unreadable(self.file, found)
        else:
            self.wrong += found.tolist()


def _wrong_rows(shard: Shard, rows: np.ndarray) -> np.ndarray | OSError:
    """Return which rows do not match their checksums, or why they cannot be read."""
    try:
        return shard.wrong_rows(rows, shard.weights[rows[0] : rows[-1] + 1])
    except OSError as error:
        return error


def _unpruned(facts: Facts, look: _Look) -> list[int]:
    """Rows in which weights are not 0 that were pruned, by their number alone."""
    shard = Shard(look.file, facts, index=look.index)
    if "pruned" not in shard.columns:
        return []
    step, found = max(1, _PART_BYTES // max(4 * shard.num_weights, 1)), []
    for start in range(0, shard.num_rows, step):
        zeros_R = zero_counts(shard.weights[start : start + step], facts.layout)
        short_R = zeros_R < shard.columns["pruned"][start : start + step]
        found += (start + np.flatnonzero(short_R)).tolist()
    return found


def _in_words(rows: list[int], what: str = "do not match their checksums") -> str:
    named = ", ".join(map(str, rows[:_ROWS_NAMED]))
    more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
    return f"rows {named}{more} {what}"
