"""Format `huggingface`: folders of `config.json` and `model.safetensors`, one network each.

A model that is cut into several files is read by its index. Where `config.json` holds `network`,
settings of dwf's own, these are the architecture.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from dwf.errors import ConfigError
from dwf.importers.importer import Importer, Member, Unusable, natural, walk
from dwf.importers.tensors import State, find_state, load_file
from dwf.networks.config import NetworkConfig
from dwf.plain import Json
from dwf.settings import build

_CONFIG, _INDEX = "config.json", "model.safetensors.index.json"
_FILES = ("model.safetensors", "pytorch_model.bin")


class HuggingFace(Importer):
    """Folders as the Hub has them; each is a run."""

    order_is_known = False

    def members(self) -> list[Member]:
        """Return a member for each folder; numbers and words of its configuration are columns."""
        folders = sorted(
            (file.parent for file in walk(self.folder) if file.name == _CONFIG),
            key=lambda path: natural(path.as_posix()),
        )
        made = [self._member(folder) for folder in folders if _file_of(folder)]
        if not made:
            raise ConfigError(
                f"source = {self.config.source!r} holds 0 networks of huggingface: no folder with "
                f"{_CONFIG} and {_FILES[0]}"
            )
        return made

    def _member(self, folder: Path) -> Member:
        told = _read(folder / _CONFIG)
        columns = {
            name.replace("/", "_"): value
            for name, value in told.items()
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)
        }
        name = self.name_of(folder) if folder != self.folder else folder.name
        file = _file_of(folder)
        return Member(name, file, self.run_of(file, name), columns=columns)

    def read(self, member: Member) -> State:
        """Return the tensors of a folder's file, or of all that its index names."""
        if member.path.name != _INDEX:
            return find_state(load_file(member.path), member.path)
        state: State = {}
        for name in sorted(set(_read(member.path).get("weight_map", {}).values())):
            if Path(name).name != name:
                raise Unusable(f"its index names {name!r}, which is outside of its folder")
            state |= find_state(load_file(member.path.parent / name), member.path)
        return state

    def network(self, members: Sequence[Member]) -> NetworkConfig | None:
        """Return the architecture, where `config.json` holds dwf's own settings of it."""
        file = members[0].path.parent / _CONFIG
        told = _read(file).get("network")
        return build(NetworkConfig, told, source=str(file), key="network") if told else None


def _file_of(folder: Path) -> Path | None:
    return next((folder / n for n in (_INDEX, *_FILES) if (folder / n).is_file()), None)


def _read(file: Path) -> dict[str, Json]:
    try:
        told = json.loads(file.read_text())
    except (ValueError, UnicodeDecodeError):
        told = None
    if not isinstance(told, dict):
        raise ConfigError(f"{file} is no JSON object")
    return told
