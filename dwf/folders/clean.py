"""Files that nothing needs any more: what they are, how large, and how they go.

A checkpoint of a finished run is of no use to any command: what was learnt lies beside it. What is
unfinished is left alone, but for the partial files of attempts that were killed.
"""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dwf.datasets.cache import data_folder, is_whole
from dwf.errors import RunConflict
from dwf.folders.kinds import KINDS, places
from dwf.run_folder import LEFTOVERS, hold, holder

_CHECKPOINTS, _WORK = "checkpoints", "work"
_RESIZED = re.compile(r"(.+)-\d+")


@dataclass(frozen=True)
class Waste:
    """A file or folder that can go."""

    path: Path
    reason: str
    """Words on what it is."""
    owner: Path
    """Folder of records that must be free while it goes."""
    num_bytes: int

    def remove(self) -> bool:
        """Remove it, and return whether it went: not where somebody has begun to work there."""
        try:
            with hold(self.owner, seconds=0):
                if self.path.is_dir():
                    shutil.rmtree(self.path)
                else:
                    self.path.unlink(missing_ok=True)
        except RunConflict:
            return False
        return True


def find_waste(root: Path) -> list[Waste]:
    """Return what can go under a root, in the order of its folders; changes nothing.

    Args:
        root: folder that holds zoos/, runs/ and reports/.
    """
    found: dict[Path, Waste] = {}
    for kind in KINDS.values():
        for place in places(root, kind):
            for waste in _in_folder(place.path):
                found.setdefault(waste.path, waste)
    return list(found.values())


def find_caches() -> list[Waste]:
    """Return smaller images in the data cache that can be made again from what lies beside them."""
    folder = data_folder()
    found = []
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        match = _RESIZED.fullmatch(path.name)
        if path.is_dir() and match and is_whole(folder / match[1]):
            reason = "smaller images, made again when they are needed"
            found.append(Waste(path, reason, owner=folder, num_bytes=size_of(path)))
    return found


def _in_folder(folder: Path) -> Iterator[Waste]:
    """Yield what can go of a folder and of those that lie in it, as trials of a sweep do."""
    for records in _records_in(folder):
        if holder(records) or _has_jobs(records):
            continue
        is_over = _is_finished(records)
        if is_over:
            for path in _named(records, _CHECKPOINTS):
                yield _waste(path, "checkpoints of a finished run", records)
            for path in _named(records, _WORK):
                if path.parent == records:
                    yield _waste(path, "work of a finished run", records)
        for path in _own_files(records, LEFTOVERS):
            yield _waste(path, "partial file of an attempt that was killed", records)
        for path in _own_files(records, "step-*.damaged"):
            yield _waste(path, "damaged checkpoint that was set aside", records)


def _waste(path: Path, reason: str, records: Path) -> Waste:
    return Waste(path, reason, owner=records, num_bytes=size_of(path))


def _records_in(folder: Path) -> list[Path]:
    """Return the folders of records of a folder and of those within it, the inmost first."""
    files = [path for path in folder.rglob("config.yaml") if not path.parent.is_symlink()]
    return sorted({file.parent for file in files}, key=lambda path: -len(path.parts))


def _is_finished(records: Path) -> bool:
    """Whether a run is finished and what it made is still there."""
    if not (records / "done.json").exists():
        return False
    if not (records / "generator.json").exists():
        return True
    from dwf.generators.generator import Generator  # imports torch

    return Generator.is_whole(records)


def _has_jobs(records: Path) -> bool:
    """Whether jobs of a cluster may still write there, which hold no lock."""
    submitted = (records / "jobs" / "submitted.json").exists()
    return submitted and not (records / "done.json").exists()


def _named(records: Path, name: str) -> Iterator[Path]:
    """Yield folders of a name that are of these records and of no others within."""
    for path in sorted(records.rglob(name)):
        if path.is_dir() and not path.is_symlink() and _owner(path.parent) == records:
            yield path


def _own_files(records: Path, pattern: str) -> Iterator[Path]:
    # The records of a zoo lie beside its shards.
    whole = records.parent if records.name == "run" else records
    for path in sorted(whole.rglob(pattern)):
        if _CHECKPOINTS in path.relative_to(whole).parts and _is_finished(records):
            continue  # goes with its folder
        if _owner(path.parent) in (records, None):
            yield path


def _owner(folder: Path) -> Path | None:
    """Return the nearest folder of records that a folder belongs to."""
    for one in (folder, *folder.parents):
        for records in (one, one / "run"):
            if (records / "config.yaml").exists():
                return records
    return None


def size_of(path: Path) -> int:
    """Return the bytes that a file, or a folder with all that is in it, has on disk."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(
        (Path(folder) / name).lstat().st_size
        for folder, _, names in os.walk(path)
        for name in names
    )
