"""Format `state_dict`: files of PyTorch or safetensors, one network each."""

from typing import ClassVar

from dwf.errors import ConfigError
from dwf.importers.importer import Importer, Member, number_in
from dwf.importers.tensors import State, find_state, load_file

ENDINGS = (".pt", ".pth", ".bin", ".safetensors")


class StateDicts(Importer):
    """Files of one network each; each is a run, unless `run_pattern` says otherwise."""

    endings: ClassVar[tuple[str, ...]] = ENDINGS

    def members(self) -> list[Member]:
        """Return a member for each file; `epoch5` or `step_12` in its name is its epoch."""
        files = self.files(*self.endings)
        self.order_is_known = not any(file.suffix == ".safetensors" for file in files)
        if not files:
            raise ConfigError(
                f"source = {self.config.source!r} holds 0 networks: no file ends with "
                f"{', '.join(self.endings)}; give another folder, or a pattern of files"
            )
        members = []
        for file in files:
            name = self.name_of(file)
            epoch = number_in(r"(?:epoch|ep|step|iter)[_-]?(\d+)", name)
            members.append(Member(name, file, self.run_of(file, name), epoch=epoch or 0))
        return members

    def read(self, member: Member) -> State:
        """Return the tensors of a member's file."""
        held = load_file(member.path)
        return find_state(held, member.path, nested=self.config.nested)
