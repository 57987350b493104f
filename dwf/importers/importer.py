"""Contract of importers: what they list, and what they read of it.

An importer lists its members without reading weights, then reads them one at a time, so that a zoo
of any size passes through the memory of one shard.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from dwf.errors import ConfigError, DwfError
from dwf.files import read_json
from dwf.importers.config import WILD, ImportConfig
from dwf.networks.config import NetworkConfig
from dwf.plain import Json, as_text

if TYPE_CHECKING:
    import torch

Value = float | int | str


class Unusable(Exception):
    """A member cannot become a row; says why. It is listed and left out."""


@dataclass(frozen=True)
class Member:
    """A network of a source, before its weights are read."""

    name: str
    """Path in the source, with the number of a row behind `#` where a file holds several."""
    path: Path
    """The file."""
    run: str
    """Training that it comes from: runs are split, never members."""
    epoch: int = 0
    """Epoch, or step, of the run."""
    row: int = 0
    """Number of the row in a file that holds several."""
    columns: Mapping[str, Value] = field(default_factory=dict)
    """Facts told by the source; `train_accuracy` and the like under dwf's own names."""


class Importer(ABC):
    """Base of all importers: one for each format.

    Args:
        config: settings of the import.

    Raises:
        ConfigError: `run_pattern` is given, and the format `tells_runs`.
    """

    order_is_known: bool = True
    """Whether tensors come in the order of the network's layers, not of their names."""
    several: ClassVar[str | None] = None
    """Column by which members become a zoo each; None: all are one zoo."""
    tells_runs: ClassVar[bool] = False
    """Whether one file holds all members and says which run each is of, so that no path can."""

    def __init__(self, config: ImportConfig):
        self.config = config
        if config.run_pattern and self.tells_runs:
            raise ConfigError(
                f"run_pattern = {config.run_pattern!r}: the format {config.format} says which run "
                "each row is of: leave run_pattern out"
            )
        self._pattern = re.compile(config.run_pattern) if config.run_pattern else None

    @abstractmethod
    def members(self) -> list[Member]:
        """Return all members, no weights read.

        Raises:
            ConfigError: the source is not of this format.
        """

    @abstractmethod
    def read(self, member: Member) -> "dict[str, torch.Tensor]":
        """Return the tensors of a member as its file has them.

        Raises:
            Unusable: the file is damaged, or holds no network.
        """

    def network(self, members: Sequence[Member]) -> NetworkConfig | None:
        """Return the architecture of members, where the format itself tells it.

        Raises:
            ConfigError: they have several.
        """
        return None

    @property
    def folder(self) -> Path:
        """Folder that names of members are relative to: what a pattern begins with."""
        path = Path(self.config.source)
        if not path.exists():
            wild = next(i for i, part in enumerate(path.parts) if any(c in part for c in WILD))
            return Path(*path.parts[:wild])
        return path if path.is_dir() else path.parent

    def files(self, *endings: str) -> list[Path]:
        """Return the source's files with one of some endings, in the natural order of their names.

        A folder is walked once, whatever links lead back to it.

        Args:
            endings: as `.pt`, or whole names; a file that the source itself names, or its pattern,
                may have any.
        """
        folder, path = self.folder, Path(self.config.source)
        named = [path] if path.exists() else folder.glob(path.relative_to(folder).as_posix())
        found: set[Path] = set()
        for one in named:
            if one.is_file():
                found.add(one)
            elif one.is_dir():
                found |= {below for below in walk(one) if below.name.endswith(endings)}
        return sorted(found, key=lambda one: natural(one.as_posix()))

    def name_of(self, path: Path) -> str:
        """Return a file's path in the source."""
        return as_text(path.relative_to(self.folder).as_posix())

    def empty(self, why: str) -> ConfigError:
        """Return the error of a source that holds no networks of this format."""
        return ConfigError(
            f"source = {self.config.source!r} holds 0 networks of {self.config.format}: {why}"
        )

    def run_of(self, path: Path, default: str) -> str:
        """Return the run of a file: as the settings' pattern says, else as the format does.

        Raises:
            ConfigError: the pattern is not in its path.
        """
        if self._pattern is None:
            return default
        found = self._pattern.search(self.name_of(path))
        if found is None or not found.groups():
            raise ConfigError(
                f"run_pattern = {self.config.run_pattern!r}: no group of it is in "
                f"{self.name_of(path)}: give one such as '(run_[0-9]+)/'"
            )
        return found[1]


def walk(folder: Path) -> Iterator[Path]:
    """Yield all files under a folder; one that is reached by several links comes once."""
    seen, waiting = set(), [folder]
    while waiting:
        here = waiting.pop()
        real = here.resolve()
        if real in seen:
            continue
        seen.add(real)
        for one in sorted(here.iterdir()):
            if one.is_dir():
                waiting.append(one)
            elif one.is_file():
                yield one


def read_object(file: Path) -> dict[str, Json] | None:
    """Return the object in a JSON file; None where it holds something else, or is damaged."""
    try:
        return read_json(file, is_finite=False)
    except DwfError:
        return None


def natural(text: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts `layer2` before `layer10`."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def number_in(pattern: str, text: str) -> int | None:
    """Return the number that a regular expression's first group finds in a text; None if none."""
    found = re.search(pattern, text)
    return int(found[1]) if found else None
