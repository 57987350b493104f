"""Names of folders under a root: which words may be one.

A name comes from a command line, a settings file, or a file that somebody else wrote. It is a path
below its place (`zoos/NAME`), and never leads out of it.
"""

from pathlib import Path, PurePosixPath

from dwf.errors import ConfigError
from dwf.plain import is_visible, visible

NAME_WANTED = "give the name of a folder, as digits_1024, and where it lies as --root"
"""Words on what is expected of a name."""
_MOST = 200  # bytes of a part: a file system takes 255, and dwf adds endings


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
