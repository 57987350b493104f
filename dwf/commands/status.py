"""How far everything in a root is, or zoos in detail."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from dwf.arguments import POSITIONAL, Argument
from dwf.cluster import slurm
from dwf.errors import ConfigError
from dwf.folders.kinds import KINDS, find_place, is_root, meant_by
from dwf.jobs import Living
from dwf.metrics import print_table
from dwf.names import folders_in
from dwf.ranks import world

if TYPE_CHECKING:
    from dwf.folders.status import Standing

_SEVERAL = Argument(metavar="[FOLDER ...]")
_IN_DETAIL = ("zoo",)
Folders = Annotated[tuple[Path, ...], POSITIONAL, _SEVERAL]


def status(folders: Folders = (), *, root: Path = Path()) -> int:
    """How far everything is, and who works on it. Reads no weights, changes nothing.

    Without a folder: all zoos, runs, reports, sweeps, audits and others in --root. With folders:
    these; zoos in detail, shard by shard; of a root all in it. The exit code is 1 where a folder
    that was given is not finished, or anything is damaged or cannot be read.

    Args:
        folders: folders to look at; default: all in the root.
        root: folder that holds zoos/, runs/ and reports/.
    """
    return world().on_first(_status, folders, root)


def _status(folders: tuple[Path, ...], root: Path) -> int:
    living = functools.cache(slurm.states)  # asked once at most
    if not folders:
        return _print_all(root, living)
    if len(folders) == 1 and is_root(folders[0]):
        return _print_all(folders[0], living)
    given = [find_place(folder, root) for folder in folders]
    zoos = [place.path for place in given if place.kind.noun in _IN_DETAIL]
    others = [place for place in given if place.kind.noun not in _IN_DETAIL]
    code = 0
    if zoos:
        from dwf.zoo.care import status as status_of_zoos

        code = status_of_zoos(zoos, living)
    if others:
        from dwf.folders.status import read_standing

        found = [read_standing(place, living) for place in others]
        _print(found)
        code = max(code, int(any(one.state != "finished" for one in found)))
    return code


def _print_all(root: Path, living: Living) -> int:
    from dwf.folders.status import in_short, read_standings

    found = read_standings(root, living)
    if not found:
        parents = {kind.parent for kind in KINDS.values()}
        if root.absolute().name in parents and folders_in(root):
            raise ConfigError(meant_by(root, root))
        print(
            f"{root.absolute()}: no zoos, runs or reports here; --root FOLDER names another place"
        )
        return 0
    _print(found, in_short(found))
    return int(any(one.state in ("damaged", "unreadable") for one in found))


def _print(found: "Sequence[Standing]", in_short: str = "") -> None:
    from dwf.folders.status import COLUMNS

    print_table(list(COLUMNS), [one.cells for one in found])
    if in_short:
        print(f"{len(found)} folders: {in_short}")
    for one in found:
        print(*one.lines, sep="\n", end="\n" * bool(one.lines))
