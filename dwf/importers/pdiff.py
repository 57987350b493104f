"""Format `pdiff`: checkpoints of p-diff (arXiv 2402.13144), steps of one run each.

`0012_acc0.9345_seed0020_cifar10_resnet18.pth` holds the tensors that went on learning after step
12; the others are those of `pretrained.pth`, beside the folder or in it.
"""

import functools
import re
from pathlib import Path

from dwf.errors import ConfigError
from dwf.importers.importer import Member
from dwf.importers.state_dict import StateDicts
from dwf.importers.tensors import State, find_state, load_file

_NAME = re.compile(r"(?P<step>\d+)_acc(?P<acc>\d*\.?\d+)_seed(?P<seed>\d+)(?:_(?P<tag>.*))?\.pth?")
PRETRAINED = "pretrained.pth"


class Checkpoints(StateDicts):
    """Files named by step, accuracy on test images, and seed; a seed and a tag are a run."""

    endings = (".pth", ".pt")

    def members(self) -> list[Member]:
        """Return a member for each file of such a name, its `epoch` the step."""
        made = []
        for file in self.files(*self.endings):
            found = _NAME.fullmatch(file.name)
            if found is None:
                continue
            name = self.name_of(file)
            run = f"{Path(name).parent.as_posix()}/seed{found['seed']}_{found['tag'] or ''}"
            columns = {"test_accuracy": float(found["acc"]), "seed": int(found["seed"])}
            step, run = int(found["step"]), self.run_of(file, run)
            made.append(Member(name, file, run, epoch=step, columns=columns))
        if not made:
            raise ConfigError(
                f"source = {self.config.source!r} holds 0 networks of pdiff: no file is called as "
                "0012_acc0.9345_seed0020_tag.pth; for other names give `format: state_dict`"
            )
        return made

    def read(self, member: Member) -> State:
        """Return the tensors of a checkpoint over those that it began from."""
        state = super().read(member)
        begun = next((f for f in _beside(member.path) if f.exists()), None)
        return self._pretrained(begun) | state if begun else state

    @functools.lru_cache(maxsize=1)  # noqa: B019  of one import, as long as it runs
    def _pretrained(self, file: Path) -> State:
        return find_state(load_file(file), file, nested=self.config.nested)


def _beside(file: Path) -> tuple[Path, Path]:
    return file.parent / PRETRAINED, file.parent.parent / PRETRAINED
