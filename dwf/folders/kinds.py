"""Kinds of folders under a root, and how one is found by its name.

ROOT/zoos/NAME   ROOT/runs/NAME   ROOT/reports/NAME   ...
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dwf.errors import ConfigError
from dwf.flags import name_and_root
from dwf.names import expanded, folder_said, folders_in
from dwf.plain import Json
from dwf.yaml_files import nearest, read_mapping


@dataclass(frozen=True)
class Kind:
    """A kind of folder."""

    parent: str
    """Folder under a root in which they lie."""
    noun: str
    """Its name in messages."""
    records: str = ""
    """Folder in it that holds the run's records; empty: they lie in the folder itself."""
    head: str = "config.yaml"
    """File that every one has, and none of another kind in the same place."""


KINDS = {
    kind.noun: kind
    for kind in (
        Kind("zoos", "zoo", records="run", head="zoo.json"),
        Kind("runs", "run"),
        Kind("runs", "experiment", records="run", head="experiment.json"),
        Kind("reports", "report"),
        Kind("finetunes", "fine-tuning", records="run", head="starts.json"),
        Kind("sweeps", "sweep"),
        Kind("audits", "audit", records="run", head="settings.yaml"),
        Kind("pipelines", "pipeline"),
        Kind("exports", "export", head="export.json"),
    )
}
"""Every kind by its noun, in the order of a listing."""
MADE_BY = {
    **dict.fromkeys(("zoo", "align", "sample"), KINDS["zoo"]),
    "generator": KINDS["run"],
    "predictor": KINDS["experiment"],
    "evaluate": KINDS["report"],
    "finetune": KINDS["fine-tuning"],
}
"""Stage of a pipeline -> kind of folder that it makes; of the others none has one of its own."""
_BY_NAME = ("report", "zoo", "run", "experiment", "fine-tuning", "sweep", "audit", "pipeline")


@dataclass(frozen=True)
class Place:
    """A folder of a kind."""

    path: Path
    kind: Kind

    @property
    def name(self) -> str:
        """Its name; names may be nested."""
        return name_and_root(self.path, self.kind.parent)[0]

    @property
    def root(self) -> Path:
        """The folder that holds zoos/, runs/ and reports/."""
        return name_and_root(self.path, self.kind.parent)[1]

    @property
    def records(self) -> Path:
        """The folder of its records."""
        return self.path / self.kind.records

    @property
    def done_file(self) -> Path:
        """The file that is there once it is finished."""
        return self.records / "done.json"

    @property
    def settings(self) -> dict[str, Json]:
        """Settings that it was made by, plain data; empty where none are recorded."""
        file = self.records / "config.yaml"
        return read_mapping(file) if file.exists() else {}

    @property
    def is_finished(self) -> bool:
        """Whether its records say that it is finished."""
        return self.done_file.exists()


def places(root: Path, kind: Kind) -> list[Place]:
    """Return the folders of a kind under a root, by name."""
    found = folders_in(root / kind.parent)
    return [Place(path, kind) for path in found if _has(path, kind.head)]


def _has(folder: Path, file: str) -> bool:
    try:
        return (folder / file).exists()
    except OSError:  # the folder is closed
        return False


def place_of(stage: str, root: Path, *, name: str) -> Place:
    """Return the folder that a stage of `MADE_BY` makes under a root."""
    kind = MADE_BY[stage]
    return Place(root / kind.parent / name, kind)


def kind_of(folder: Path) -> Kind | None:
    """Return which kind a folder is by its place, else by its files; None of another."""
    able = [kind for kind in KINDS.values() if (folder / kind.head).exists()]
    parents = {kind.parent for kind in KINDS.values()}
    home = next((path.name for path in folder.absolute().parents if path.name in parents), None)
    at_home = [kind for kind in able if kind.parent == home]
    return next(iter(at_home or able), None)


def is_root(folder: Path) -> bool:
    """Return whether a folder is none of a kind, and holds folders such as zoos/."""
    parents = (folder / kind.parent for kind in KINDS.values())
    return kind_of(folder) is None and any(parent.is_dir() for parent in parents)


def find_place(word: Path, root: Path) -> Place:
    """Return the folder that a word of a command line says: a path to it, or the name of a zoo.

    Args:
        word: as it was typed.
        root: folder that holds zoos/, runs/ and reports/.

    Raises:
        ConfigError: it says none; names the commands that show what it may mean.
    """
    folder = folder_said(word, KINDS["zoo"].parent)
    kind = kind_of(folder)
    if kind is None:
        raise ConfigError(meant_by(word, root) or _unknown(str(word), root))
    return Place(folder, kind)


def meant_by(word: Path, root: Path) -> str:
    """Return what a word that is no folder of a kind may mean, and which commands show that.

    Empty where it is neither a kind, nor a folder of folders, nor a name under the root.
    """
    parents = {kind.parent for kind in KINDS.values()}
    name = word.absolute().name
    if word.is_dir() and name in parents:
        root = word.parent if word.name else word.absolute().parent
    kind = next((k for k in KINDS.values() if name in (k.parent, k.noun)), None)
    every = [place for one in KINDS.values() for place in places(root, one)]
    if kind:
        known = [place for place in every if place.kind.parent == kind.parent]
        what = f"names no {kind.noun}; these lie in {kind.parent}/ of a root"
    else:
        known = [place for place in every if word.absolute() in place.path.absolute().parents]
        what = "is but the first part of a name"
        if not known:
            known = [place for place in every if str(word) == place.name]
            what = "names no zoo, but another folder"
    if not (kind or known):
        return ""
    one = shlex.quote(str(known[0].path)) if known else f"{root / kind.parent}/NAME"
    return f"{word} {what}: {_listing(root)} lists all, dwf status {one} tells of one"


def _listing(root: Path) -> str:
    is_here = root.absolute() == Path.cwd()
    return "dwf status" + ("" if is_here else f" --root {shlex.quote(str(root))}")


def find_alike(words: Sequence[str], root: Path) -> list[Place]:
    """Return the folders that words stand for: folders, or names under a root of one kind.

    Where names are those of several kinds, reports come before zoos, and these before runs.

    Args:
        words: paths of folders, or names.
        root: folder that holds zoos/, runs/ and reports/.

    Raises:
        ConfigError: one stands for nothing; or the two are of different kinds.
    """
    paths = [expanded(word) for word in words]
    kinds = [kind_of(path) if path.is_dir() else None for path in paths]
    if None in kinds:
        able = [KINDS[noun] for noun in _BY_NAME]
        shared = [kind for kind in able if all(_is_there(root, kind, word) for word in words)]
        if not shared:
            raise ConfigError(_not_found(words, root, kinds))
        return [Place(root / shared[0].parent / word, shared[0]) for word in words]
    if len(set(kinds)) > 1:
        each = ", ".join(f"{p} is a {k.noun}" for p, k in zip(paths, kinds, strict=True))
        raise ConfigError(f"{each}: give two of one kind")
    return [Place(path, kind) for path, kind in zip(paths, kinds, strict=True)]


def _is_there(root: Path, kind: Kind, word: str) -> bool:
    return (root / kind.parent / word / kind.head).exists()


def _not_found(words: Sequence[str], root: Path, kinds: Sequence[Kind | None]) -> str:
    for word, kind in zip(words, kinds, strict=True):
        if not kind and not _parents(root, word):
            return _unknown(word, root)
    where = ", ".join(f"{word} in {_parents(root, word) or 'a folder'}" for word in words)
    return f"{where}: give two of one kind, as folders"


def _unknown(word: str, root: Path) -> str:
    known = [place.name for one in KINDS.values() for place in places(root, one)]
    return (
        f"{word}: no folder of dwf, and no name of one under {root}{nearest(word, known)}; "
        f"{_listing(root)} lists them"
    )


def _parents(root: Path, word: str) -> str:
    found = [f"{kind.parent}/" for kind in KINDS.values() if _is_there(root, kind, word)]
    return " and ".join(dict.fromkeys(found))
