"""Settings files: what they say, laid over those that they extend."""

from pathlib import Path
from typing import TypeVar

from dwf.names import expanded
from dwf.plain import Json
from dwf.settings.building import Origins, build
from dwf.settings.plain_data import flatten
from dwf.settings.presets import find_file
from dwf.trackers import TrackerName
from dwf.trust import code_in, trust_code
from dwf.yaml_files import laid_over, read_chain

T = TypeVar("T")
TRACK = "compute.track"
"""Setting that any stage's file may have, and that is in no stage's settings: see `trackers`."""


def load(cls: type[T], path: Path | str) -> T:
    """Read a YAML file that the user named into a settings object; code that it names is trusted.

    Trackers that it names are not begun: from Python, that is `trackers.track_with`.

    Raises:
        ConfigError: as in `read_yaml` and `build`.
    """
    data, origins = read_merged(expanded(path))
    take_track(data, str(path), origins=origins)
    config = build(cls, data, source=str(path), origins=origins)
    trust_code(*code_in(config))
    return config


def read_yaml(path: Path | str, command: str = "") -> dict[str, Json]:
    """Read a YAML file that holds one mapping, laid over the file that it extends, if any.

    `extends: FILE` names a file, relative to the one that says it. Mappings are merged, key by key
    and however deep; any other value, a list too, takes the place of the one there. Where the two
    files give a part (a codec, a dataset) different kinds, the part is the extending file's alone:
    none of the other kind's settings are left in it. What the file says of trackers is left out.

    Args:
        path: the file.
        command: the command of which `path` may also be a preset's name.

    Raises:
        ConfigError: no such file, not YAML, or files extend each other in a circle.
    """
    file = find_file(path, command) if command else Path(path)
    data, origins = read_merged(file)
    take_track(data, str(file), origins=origins)
    return data


def read_merged(path: Path) -> tuple[dict[str, Json], Origins]:
    """Return what a file and those that it extends say, and where each setting stands."""
    data: dict[str, Json] = {}
    files: dict[str, str] = {}
    lines: dict[str, dict[str, int]] = {}
    for said in reversed(read_chain(path)):
        data = laid_over(data, said.data)
        files |= dict.fromkeys(flatten(said.data), str(said.file))
        lines[str(said.file)] = said.lines
    return data, Origins({key: files[key] for key in flatten(data)}, lines)


def take_track(data: dict[str, Json], source: str, *, origins: Origins) -> tuple[TrackerName, ...]:
    """Take what a file says of trackers out of its data, and return it."""
    block = data.get("compute")
    if not isinstance(block, dict) or "track" not in block:
        return ()
    names = block.pop("track")
    told = build(tuple[TrackerName, ...], names, source=source, origins=origins, key=TRACK)
    if not block:
        del data["compute"]
    return told
