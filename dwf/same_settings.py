"""Whether the settings of a run are those that it was begun with."""

from collections.abc import Collection, Iterator
from pathlib import Path

from dwf.errors import RunConflict
from dwf.plain import Json, Settings
from dwf.settings import flatten, to_dict
from dwf.yaml_files import read_mapping

_CHANGE_NO_BYTE = ("workers", "save_seconds")


def refuse_other_settings(
    folder: Path, config: Settings | dict[str, Json], *, free: Collection[str] = ()
) -> bool:
    """Raise where the run in a folder has other settings; return whether `free` ones differ.

    Those that change no byte of what is made may have any value at any time.

    Args:
        folder: the run folder.
        config: the settings, a dataclass or plain data.
        free: dotted keys that may differ, see `RunFolder`.

    Raises:
        RunConflict: others differ; names the first key with both values.
    """
    file = folder / "config.yaml"
    others = [
        one
        for one in differences(read_mapping(file), to_dict(config))
        if one[0].rpartition(".")[2] not in _CHANGE_NO_BYTE
    ]
    for key, before, now in others:
        if key not in free or before is None or now is None:
            raise RunConflict(
                f"{folder} holds a run with {key} = {before!r}, this one has {now!r}: give "
                "another --name, or remove the folder"
            )
    return bool(others)


def differences(old: dict[str, Json], new: dict[str, Json]) -> Iterator[tuple[str, Json, Json]]:
    """Yield each dotted key in which plain settings differ, with both values; None is none."""
    old, new = flatten(old), flatten(new)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)
