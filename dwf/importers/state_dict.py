"""Format `state_dict`: files of PyTorch or safetensors, one network each; and formats by names."""

import re
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from dwf.importers.importer import Importer, Member, number_in
from dwf.importers.tensors import State, read_tensors
from dwf.metrics import logger

ENDINGS = (".pt", ".pth", ".bin", ".safetensors")
_EPOCH = r"(?:epoch|(?<![a-z])ep|step|iter)[_-]?(\d{1,9})(?!\d)"


class StateDicts(Importer):
    """Files of one network each; each is a run, unless `run_pattern` says otherwise."""

    endings: ClassVar[tuple[str, ...]] = ENDINGS

    def members(self) -> list[Member]:
        """Return a member for each file; `epoch5` or `step_12` in its name is its epoch."""
        files = self.files(*self.endings)
        self.order_is_known = not any(file.suffix == ".safetensors" for file in files)
        if not files:
            raise self.empty(
                f"no file ends with {', '.join(self.endings)}; give another folder, or a pattern "
                "of files"
            )
        members = []
        for file in files:
            name = self.name_of(file)
            epoch = number_in(_EPOCH, name)
            members.append(Member(name, file, self.run_of(file, name), epoch=epoch or 0))
        return members

    def read(self, member: Member) -> State:
        """Return the tensors of a member's file."""
        return read_tensors(member.path, nested=self.config.nested)


class NamedFiles(StateDicts):
    """Base of formats whose files tell of their network by how they are called."""

    pattern: ClassVar[re.Pattern]
    """Whole name of a network's file; other files are left out."""
    example: ClassVar[str]
    """One such name."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Names of files that lie beside them, and hold no network."""

    def members(self) -> list[Member]:
        """Return a member for each file of such a name."""
        files = self.files(*self.endings)
        found = {file: match for file in files if (match := self.pattern.fullmatch(file.name))}
        if not found:
            raise self.empty(
                f"no file is called as {self.example}; for other names give `format: state_dict`"
            )
        others = [f.name for f in files if f not in found and f.name not in self.beside]
        if others:
            logger.info(
                "%s: %d files that are not called as %s are left out, such as %s",
                *(self.config.source, len(others), self.example, others[0]),
            )
        return [self.member(file, match) for file, match in found.items()]

    @abstractmethod
    def member(self, file: Path, match: re.Match) -> Member:
        """Return the member that a file is, by what its name tells."""
