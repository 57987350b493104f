"""Kinds of folders under a root, and how one is found by its name.

ROOT/zoos/NAME   ROOT/runs/NAME   ROOT/reports/NAME   ...
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dwf.errors import ConfigError
from dwf.plain import Json
from dwf.yaml_files import nearest


@dataclass(frozen=True)
class Kind:
    """A kind of folder."""

    noun: str
    """Its name in messages."""
    records: str = ""
    """Folder in it that holds the run's records; empty: they lie in the folder itself."""
    head: str = "config.yaml"
    """File that every one has."""

    def config_file(self, folder: Path) -> Path:
        """The file of the settings of one."""
        return folder / self.records / "config.yaml"

    def done_file(self, folder: Path) -> Path:
        """The file that is there once one is finished."""
        return folder / self.records / "done.json"


KINDS = {
    "zoos": Kind("zoo", records="run", head="zoo.json"),
    "runs": Kind("run"),
    "reports": Kind("report"),
    "finetunes": Kind("fine-tuning", records="run", head="run/config.yaml"),
    "sweeps": Kind("sweep"),
    "audits": Kind("audit", records="run", head="run/config.yaml"),
    "pipelines": Kind("pipeline"),
    "exports": Kind("export", head="export.json"),
}
"""Folder under a root -> the kind of what lies in it, in the order of a listing."""
_BY_NAME = ("reports", "zoos", "runs", "finetunes", "sweeps", "audits", "pipelines")


@dataclass(frozen=True)
class Place:
    """A folder of a kind."""

    path: Path
    kind: Kind

    @property
    def settings(self) -> dict[str, Json]:
        """Settings that it was made by, plain data; empty where none are recorded."""
        file = self.kind.config_file(self.path)
        return (yaml.safe_load(file.read_text()) or {}) if file.exists() else {}

    @property
    def is_finished(self) -> bool:
        """Whether its records say that it is finished."""
        return self.kind.done_file(self.path).exists()


def places(root: Path, name: str) -> list[Place]:
    """Return the folders of one kind under a root, by name.

    Args:
        root: folder that holds zoos/, runs/ and reports/.
        name: the kind: one of `KINDS`.
    """
    kind = KINDS[name]
    found = sorted((root / name).glob(f"*/{kind.head}"))
    return [Place(file.parents[len(Path(kind.head).parts) - 1], kind) for file in found]


def kind_of(folder: Path) -> Kind | None:
    """Return which kind a folder is by its place, else by its files; None of another."""
    by_place = KINDS.get(folder.absolute().parent.name)
    if by_place and (folder / by_place.head).exists():
        return by_place
    return next((kind for kind in KINDS.values() if (folder / kind.head).exists()), None)


def find_alike(words: Sequence[str], root: Path) -> list[Place]:
    """Return the folders that words stand for: folders, or names under a root of one kind.

    Where names are those of several kinds, reports come before zoos, and these before runs.

    Args:
        words: paths of folders, or names.
        root: folder that holds zoos/, runs/ and reports/.

    Raises:
        ConfigError: one stands for nothing; or the two are of different kinds.
    """
    paths = [Path(word).expanduser() for word in words]
    kinds = [kind_of(path) if path.is_dir() else None for path in paths]
    if None in kinds:
        shared = [name for name in _BY_NAME if all(_is_there(root, name, word) for word in words)]
        if not shared:
            raise ConfigError(_not_found(words, root, kinds))
        return [Place(root / shared[0] / word, KINDS[shared[0]]) for word in words]
    if len(set(kinds)) > 1:
        each = ", ".join(f"{p} is a {k.noun}" for p, k in zip(paths, kinds, strict=True))
        raise ConfigError(f"{each}: give two of one kind")
    return [Place(path, kind) for path, kind in zip(paths, kinds, strict=True)]


def _is_there(root: Path, name: str, word: str) -> bool:
    return (root / name / word / KINDS[name].head).exists()


def _not_found(words: Sequence[str], root: Path, kinds: Sequence[Kind | None]) -> str:
    for word, kind in zip(words, kinds, strict=True):
        where = [name for name in KINDS if _is_there(root, name, word)]
        if not kind and not where:
            known = [place.path.name for name in KINDS for place in places(root, name)]
            return (
                f"{word}: no folder of dwf, and no name of one under {root}"
                f"{nearest(word, known)}; dwf status --root {root} lists them"
            )
    where = ", ".join(f"{w} in {_kinds_with(root, w) or 'a folder'}" for w in words)
    return f"{where}: give two of one kind, as folders"


def _kinds_with(root: Path, word: str) -> str:
    return " and ".join(f"{name}/" for name in KINDS if _is_there(root, name, word))
