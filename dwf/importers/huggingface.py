"""Format `huggingface`: folders of `config.json` and `model.safetensors`, one network each.

A model that is cut into several files is read by its index. Where `config.json` holds `network`,
settings of dwf's own, these are the architecture.
"""

from collections.abc import Sequence
from pathlib import Path

from dwf.importers.importer import Importer, Member, Unusable, read_object
from dwf.importers.tensors import State, read_tensors
from dwf.metrics import logger
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
        folders = [file.parent for file in self.files(_CONFIG) if file.name == _CONFIG]
        made = [self._member(folder) for folder in folders if _file_of(folder)]
        if not made:
            raise self.empty(f"no folder with {_CONFIG} and {_FILES[0]}")
        return made

    def _member(self, folder: Path) -> Member:
        columns = {
            name: value
            for name, value in _read(folder / _CONFIG).items()
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)
        }
        name = self.name_of(folder) if folder != self.folder else folder.name
        file = _file_of(folder)
        return Member(name, file, self.run_of(file, name), columns=columns)

    def read(self, member: Member) -> State:
        """Return the tensors of a folder's file, or of all that its index names."""
        if member.path.name != _INDEX:
            return read_tensors(member.path, nested=self.config.nested)
        state: State = {}
        for name in _pieces(member.path):
            if Path(name).name != name:
                raise Unusable(f"its index names {name!r}, which is outside of its folder")
            state |= read_tensors(member.path.parent / name)
        return state

    def network(self, members: Sequence[Member]) -> NetworkConfig | None:
        """Return the architecture, where `config.json` holds dwf's own settings of it."""
        for file in (member.path.parent / _CONFIG for member in members):
            if (told := read_object(file)) is not None:
                own = told.get("network")
                return build(NetworkConfig, own, source=str(file), key="network") if own else None
        return None


def _file_of(folder: Path) -> Path | None:
    return next((folder / n for n in (_INDEX, *_FILES) if (folder / n).is_file()), None)


def _read(file: Path) -> dict[str, Json]:
    """Settings in a file; where it is damaged, which is told, there are none."""
    told = read_object(file)
    if told is None:
        logger.warning("%s is no JSON object: nothing is known of its network", file)
    return told or {}


def _pieces(index: Path) -> list[str]:
    """Names of the files that hold the parts of a network.

    Raises:
        Unusable: the index is damaged.
    """
    told = (read_object(index) or {}).get("weight_map")
    if not isinstance(told, dict) or not all(isinstance(name, str) for name in told.values()):
        raise Unusable(f"damaged: {index.name} has no `weight_map`")
    return sorted(set(told.values()))
