"""How far everything in a root is, or zoos in detail."""

from pathlib import Path
from typing import Annotated

from dwf.arguments import POSITIONAL, Argument
from dwf.errors import ConfigError
from dwf.folders.kinds import KINDS, Place, kind_of
from dwf.metrics import print_table
from dwf.ranks import world

_SEVERAL = Argument(metavar="[FOLDER ...]")
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
    if not folders:
        return _print_all(root)
    (first, *more) = folders
    if not more and kind_of(first) is None and (first / "zoos").is_dir():
        return _print_all(first)
    others = [folder for folder in folders if kind_of(folder) not in (KINDS["zoo"], None)]
    zoos = [folder for folder in folders if folder not in others]  # whoever reads it refuses others
    code = 0
    if zoos:
        from dwf.zoo.care import status as status_of_zoos

        code = status_of_zoos(tuple(zoos))
    if others:
        from dwf.folders.status import COLUMNS, read_standing

        found = [read_standing(_place(each)) for each in others]
        print_table(list(COLUMNS), [one.cells for one in found])
        for one in found:
            if one.holder:
                print(f"{one.place.path}: worked on by {one.holder}")
        code = max(code, int(any(one.state != "finished" for one in found)))
    return code


def _place(folder: Path) -> Place:
    kind = kind_of(folder)
    if kind is None:
        raise ConfigError(f"{folder}: no folder of dwf")
    return Place(folder, kind)


def _print_all(root: Path) -> int:
    from dwf.folders.status import COLUMNS, in_short, read_standings

    found = read_standings(root)
    if not found:
        print(
            f"{root.absolute()}: no zoos, runs or reports here; --root FOLDER names another place"
        )
        return 0
    print_table(list(COLUMNS), [one.cells for one in found])
    print(f"{len(found)} folders: {in_short(found)}")
    for one in found:
        if one.holder:
            print(f"{one.place.path}: worked on by {one.holder}")
    return int(any(one.state in ("damaged", "unreadable") for one in found))
