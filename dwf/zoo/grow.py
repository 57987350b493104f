"""A zoo that grows: a larger `count` trains the networks that are missing, as a zoo beside it.

    zoos/NAME/         networks 0 to 129, as they are
    zoos/NAME/grown.json    names the zoos that widen it; written when the first of them is whole
    zoos/NAME-130/     networks 130 to 199, a zoo like any other with `first: 130`

`Zoo.open` then opens NAME as one zoo of 200. Files and splits of the old one are as they were, and
network i has the bytes that it has in a zoo that is trained with 200 at once.
"""

import dataclasses
from pathlib import Path

from dwf.datasets.own import identified
from dwf.errors import RunConflict
from dwf.flags import words_naming
from dwf.names import folder_in
from dwf.plain import Json
from dwf.same_settings import differences
from dwf.settings import to_dict
from dwf.yaml_files import read_mapping
from dwf.zoo.config import ZooConfig
from dwf.zoo.facts import FILE, Facts, Method
from dwf.zoo.manifest import grown_by, note_grown

_GROWS = {"count", "first"}


def target_of(config: ZooConfig, root: Path, *, name: str) -> tuple[ZooConfig, str]:
    """Return settings and name of the zoo to train: the asked one, or one that widens it.

    Args:
        config: settings as they are asked for.
        root: folder that holds `zoos/`.
        name: the zoo's name.

    Raises:
        RunConflict: the zoo has fewer networks than are asked for and is not finished, or is a
            single network, whose rows are split by steps; or it was widened otherwise; or it
            differs in more than `count`.
    """
    folder = folder_in(Path(root) / "zoos", name)
    _refuse_other(folder, config)
    had = _count(folder, config)
    if had is None or had >= config.count:
        return config, name
    if had == 1:
        raise RunConflict(
            f"{folder} is of one network, whose rows are split by steps, and cannot grow: give "
            "another --name"
        )
    while had < config.count:
        _refuse_unfinished(folder, config.count)
        made = f"{name}-{had}"
        folder = Path(root) / "zoos" / made
        config = dataclasses.replace(config, first=had)
        more = _count(folder, config)
        if more is None:  # not there; or another zoo's, which is refused when it is begun
            return config, made
        had = more
    if had > config.count:
        raise RunConflict(
            f"{folder} has networks {config.first} to {had - 1} already: give --count {had} or "
            f"more, not {config.count}"
        )
    return config, made


def join(config: ZooConfig, folder: Path) -> None:
    """Note a whole zoo in the folder of that which it widens, if it widens one of that name."""
    if config.first is None:
        return
    wide = folder.with_name(folder.name.removesuffix(f"-{config.first}"))
    if wide == folder or _count(wide, dataclasses.replace(config, first=None)) is None:
        return
    known = [path.name for path in grown_by(wide)]
    if folder.name not in known:
        note_grown(wide, [*known, folder.name])


def method_of(config: ZooConfig, folder: Path) -> Method | None:
    """Return how networks of the zoo that one widens are computed, where a timing chose it."""
    wide = folder.with_name(folder.name.removesuffix(f"-{config.first}"))
    if config.first is None or wide == folder or not (wide / FILE).exists():
        return None
    method = Facts.read(wide).method
    return method if method and method.chosen == "measured" else None


def _count(folder: Path, config: ZooConfig) -> int | None:
    """Return the `count` of a zoo of these settings but for it; None of another, or of none."""
    old, apart = _recorded(folder, config)
    if old is None or apart.keys() - _GROWS or old.get("first") != config.first:
        return None
    return old["count"]


def _recorded(
    folder: Path, config: ZooConfig
) -> tuple[dict[str, Json] | None, dict[str, tuple[Json, Json]]]:
    """Return the settings of the zoo in a folder, if there is one, and where others differ."""
    file = folder / "run" / "config.yaml"
    if not file.exists() or not (folder / FILE).exists():
        return None, {}
    old: dict[str, Json] = read_mapping(file)
    now = to_dict(dataclasses.replace(config, data=identified(config.data)))
    return old, {key: (before, after) for key, before, after in differences(old, now)}


def _refuse_other(folder: Path, config: ZooConfig) -> None:
    """Refuse other settings by name where `count`, which may differ, would be named first."""
    _, apart = _recorded(folder, config)
    others = [key for key in apart if key not in _GROWS]
    if "count" in apart and others:
        before, now = apart[others[0]]
        raise RunConflict(
            f"{folder} holds a zoo with {others[0]} = {before!r}, this one has {now!r}: a zoo "
            "grows by --count alone; give another --name, or remove the folder"
        )


def _refuse_unfinished(folder: Path, count: int) -> None:
    if not (folder / "run" / "done.json").exists():
        raise RunConflict(
            f"{folder} is to grow to {count} networks, and is not finished: give dwf zoo --resume "
            f"{words_naming(folder, 'zoos')} first, then this command again"
        )
