"""Manifest: one name for several zoos, as those of a family of architectures.

A manifest is a folder among the zoos whose `zoo.json` names zoos beside it, each under a label.
Stages that take several zoos take its name for theirs: see `zoos_named`.

A zoo that has grown is no such folder: its own names the zoos beside it that widen it, in
`grown.json`, and `Zoo.open` opens them as one.
"""

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from dwf.errors import ConfigError, CorruptCheckpoint, NotAZoo, RunConflict
from dwf.files import read_json
from dwf.names import why_no_part
from dwf.plain import Json
from dwf.run_folder import write_json
from dwf.zoo.facts import FILE, MANIFEST

VERSION = 1
GROWN = "grown.json"
"""File in a zoo's folder that names the zoos beside it that widen it."""
_GROWN_FORMAT = "dwf-grown"
_CURE = "remove it and give the command that makes this family of zoos again"


def write_manifest(folder: Path | str, zoos: Mapping[str, str]) -> None:
    """Write a manifest, or leave it where it is there already.

    Args:
        folder: its folder, beside those of the zoos; made if it is missing.
        zoos: label -> name of the zoo, in order; the zoos need not be there yet.

    Raises:
        ConfigError: there are none, a label or zoo stands there twice, or a label is no name.
        RunConflict: the folder is a zoo, or a manifest of other zoos.
    """
    folder = Path(folder)
    bad = [label for label in zoos if _is_path(label)]
    if not zoos or bad or len(set(zoos.values())) < len(zoos):
        raise ConfigError(f"zoos = {dict(zoos)}: expected labels, each with a zoo of its own")
    file = folder / FILE
    if file.exists():
        now = read_manifest(folder)
        if now != dict(zoos):
            held = "a zoo" if now is None else f"a manifest of {', '.join(now.values())}"
            raise RunConflict(
                f"{folder} is {held}, and not of {', '.join(zoos.values())}: give another --name, "
                "or remove the folder"
            )
        return
    write_json(file, {"format": MANIFEST, "version": VERSION, "zoos": dict(zoos)})


def read_manifest(folder: Path) -> dict[str, str] | None:
    """Return label -> name of the zoo beside it, in order; None of a folder that is no manifest.

    Raises:
        NotAZoo: it is one of another version, or is not as this dwf writes it.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        told: dict[str, Json] = read_json(file)
        kind = told.get("format")
    except CorruptCheckpoint:
        return None  # what a zoo says is read by `Facts`, which says what is wrong
    if kind != MANIFEST:
        return None
    zoos = told.get("zoos")
    if told.get("version") != VERSION or not isinstance(zoos, dict) or not zoos:
        raise NotAZoo(
            f"{file}: version {told.get('version')} of {len(zoos or ())} zoos, this dwf reads "
            f"version {VERSION} of one or more: {_CURE}"
        )
    wrong = [name for name in zoos.values() if not isinstance(name, str) or _is_path(name)]
    if wrong:
        raise NotAZoo(f"{file}: zoos names {wrong[0]!r}, expected a folder beside it: {_CURE}")
    return zoos


def zoos_named(zoos: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the zoos that names stand for: of a manifest its zoos, of a zoo itself, in order.

    Args:
        zoos: folder of the zoos.
        names: of zoos and manifests; one that is not there yet stands for itself.

    Raises:
        NotAZoo: see `read_manifest`.
    """
    found: list[str] = []
    for name in names:
        members = members_of(zoos, name)
        found += [name] if members is None else members.values()
    return tuple(found)


def members_of(zoos: Path, name: str) -> dict[str, str] | None:
    """Return label -> name of the zoo, of a manifest's name; None of another's.

    Args:
        zoos: folder of the zoos.
        name: under it, as those that are returned: of `a/b` they are `a/...`, too.

    Raises:
        NotAZoo: see `read_manifest`.
    """
    told, place = read_manifest(zoos / name), PurePosixPath(name).parent
    return None if told is None else {label: str(place / zoo) for label, zoo in told.items()}


def grown_by(folder: Path) -> tuple[Path, ...]:
    """Return the folders of the zoos that widen one, in the order of their networks.

    Raises:
        NotAZoo: what says so is of another version, or is not as this dwf writes it.
    """
    file = folder / GROWN
    if not file.exists():
        return ()
    cure = f"remove it and give the command that widened {folder.name} again"
    told = read_json(file, keys=("format", "version", "zoos"), cure=cure, error=NotAZoo)
    head, zoos = (told["format"], told["version"]), told["zoos"]
    if not isinstance(zoos, list):
        raise NotAZoo(f"{file}: zoos = {reprlib.repr(zoos)}, a list is expected: {cure}")
    wrong = [name for name in zoos if not isinstance(name, str) or _is_path(name)]
    if head != (_GROWN_FORMAT, VERSION) or wrong:
        raise NotAZoo(
            f"{file}: format {head[0]} {head[1]}, zoos = {zoos}; this dwf reads {_GROWN_FORMAT} "
            f"{VERSION}, of folders beside it: {cure}"
        )
    return tuple(folder.with_name(name) for name in zoos)


def note_grown(folder: Path, zoos: Sequence[str]) -> None:
    """Write which zoos beside a zoo widen it, in the order of their networks."""
    told: dict[str, Json] = {"format": _GROWN_FORMAT, "version": VERSION, "zoos": list(zoos)}
    write_json(folder / GROWN, told)


def _is_path(name: str) -> bool:
    return why_no_part(name) is not None
