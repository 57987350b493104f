"""Names of folders under a root: which words may be one.

A name comes from a command line, a settings file, or a file that somebody else wrote. It is a path
below its place (`zoos/NAME`), and never leads out of it.
"""

import os
from pathlib import Path, PurePosixPath

from dwf.errors import ConfigError
from dwf.plain import is_visible, visible

NAME_WANTED = "give the name of a folder, as digits_1024, and where it lies as --root"
"""Words on what is expected of a name."""
_RECORDS = "run"  # folder of records within a zoo
_MOST = 200  # bytes of a part: a file system takes 255, and dwf adds endings


def expanded(word: Path | str) -> Path:
    """Return a path whose `~` is the user's home; one of a user who is not known stays as it is.

    `Path.expanduser` raises RuntimeError there.
    """
    return Path(os.path.expanduser(word))


def why_no_name(name: object) -> str | None:
    """Return why a word is no name of a folder; None where it is one."""
    if not isinstance(name, str) or not name:
        return "a name is expected"
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or {"..", "~"} & {*parts} or name.startswith("~"):
        return "it leads out of its folder"
    if {"", "."} & {*parts}:
        return "a part of it is empty or `.`"
    if any("\ud800" <= c <= "\udfff" for c in name):
        return "its bytes are no text in UTF-8"
    if not is_visible(name):
        return "it has characters that no screen shows"
    if any(len(part.encode()) > _MOST for part in parts):
        return f"a part of it is longer than {_MOST} bytes"
    return None


def why_no_part(name: object) -> str | None:
    """Return why a word is no name of a folder beside another; None where it is one."""
    if isinstance(name, str) and "/" in name:
        return "it is a path, a name is expected"
    return why_no_name(name)


def refuse_no_name(name: object, key: str) -> None:
    """Raise unless a word may name a folder under a root.

    Args:
        name: the word.
        key: the setting or the file's key, for the error.

    Raises:
        ConfigError: it is empty or `.`, leads elsewhere, or has characters that no screen shows.
    """
    why = why_no_name(name)
    if why is not None:
        shown = visible(str(name))[:_MOST]
        raise ConfigError(f"{key} = {shown!r}: {why}; {NAME_WANTED}")


def folder_in(parent: Path | str, name: str) -> Path:
    """Return the folder of a name in its place, as `root / "zoos"`.

    Raises:
        ConfigError: see `refuse_no_name`.
    """
    refuse_no_name(name, f"name of a folder in {Path(parent).name}/")
    return Path(parent) / name


def folders_in(place: Path) -> list[Path]:
    """Return the folders that have a name in a place, as `root / "zoos"`, by name.

    A folder that holds folders alone, none of them `run`, is the first part of nested names. One
    that the system does not list, and a link, is returned as it is.
    """
    found: list[Path] = []
    for path in _inside(place):
        found += folders_in(path) if _is_part(path) else [path]
    return found


def _inside(place: Path) -> list[Path]:
    """Return the folders in a folder, as far as this user may look."""
    try:
        return sorted(path for path in place.iterdir() if _is_folder(path))
    except OSError:  # none is there, or it is closed
        return []


def _is_folder(path: Path) -> bool:
    """Return whether a folder is there; of one that this user may not look at, that it is."""
    try:
        return path.is_dir()
    except OSError:
        return True


def _is_part(folder: Path) -> bool:
    """Return whether a folder holds folders of nested names and nothing of its own."""
    if folder.is_symlink():
        return False
    try:
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return bool(inside) and all(path.is_dir() and path.name != _RECORDS for path in inside)
    except OSError:
        return False


def name_said(word: str, parent: Path, *, key: str, may_be_path: bool = False) -> str:
    """Return the name that a word of a command line says: the name itself, or a path to its folder.

    Args:
        word: as it was typed: `x`, `zoos/x`, `zoos/x/` or `/data/zoos/x`.
        parent: where folders of such names lie, as `root / "zoos"`.
        key: how the word was given, for the error.
        may_be_path: whether a path that lies elsewhere is meant as it stands.

    Raises:
        ConfigError: the word is a folder that lies elsewhere.
    """
    plain = word.rstrip("/")
    if why_no_name(plain) is None and ("/" not in plain or (parent / plain).exists()):
        return plain
    paths = [expanded(word), parent.parent / word]
    for path in paths if plain else ():
        for found, place in (
            (Path(os.path.abspath(path)), Path(os.path.abspath(parent))),
            (path.parent.resolve() / path.name, parent.resolve()),
        ):
            if found != place and found.is_relative_to(place):
                return found.relative_to(place).as_posix()
    is_elsewhere = why_no_name(plain) is not None or parent.name in Path(plain).parts
    if may_be_path or not (plain and is_elsewhere and paths[0].is_dir()):
        return word
    where = parent.parent
    raise ConfigError(
        f"{key} {visible(word)}: the folder lies outside {parent}: give the --root that it is "
        f"under, which is {where} now"
    )


def folder_said(word: Path, place: str) -> Path:
    """Return the folder that a word of a command line says: a path to it, or its name in a place.

    It has a name, also where the word has none, as `.` and `..`.

    Args:
        word: as it was typed: `zoos/x` or `x`.
        place: folder under the current one in which such names lie, as `zoos`.
    """
    if word.name in ("", ".."):
        return word.resolve()
    inside = Path(place) / word
    return inside if not word.exists() and inside.exists() else word
