"""Format `pdiff`: checkpoints of p-diff (arXiv 2402.13144), steps of one run each.

`0012_acc0.9345_seed0020_cifar10_resnet18.pth` holds the tensors that went on learning after step
12; the others are those of `pretrained.pth`, beside the folder or in it.
"""

import functools
import re
from pathlib import Path

from dwf.importers.importer import Member, Unusable
from dwf.importers.state_dict import NamedFiles
from dwf.importers.tensors import State, read_tensors

PRETRAINED = "pretrained.pth"


class Checkpoints(NamedFiles):
    """Files named by step, accuracy on test images, and seed; a seed and a tag are a run."""

    endings = (".pth", ".pt")
    example = "0012_acc0.9345_seed0020_tag.pth"
    beside = (PRETRAINED,)
    pattern = re.compile(
        r"(?P<step>\d{1,9})_acc(?P<acc>\d*\.?\d+)_seed(?P<seed>\d+)(?:_(?P<tag>.*))?\.pth?"
    )

    def member(self, file: Path, match: re.Match) -> Member:
        """Return the member that a file is, its `epoch` the step."""
        name = self.name_of(file)
        run = f"{Path(name).parent.as_posix()}/seed{match['seed']}_{match['tag'] or ''}"
        columns = {"test_accuracy": float(match["acc"]), "seed": int(match["seed"])}
        step = int(match["step"])
        return Member(name, file, self.run_of(file, run), epoch=step, columns=columns)

    def read(self, member: Member) -> State:
        """Return the tensors of a checkpoint over those that it began from."""
        state = super().read(member)
        begun = next((f for f in _beside(member.path) if f.exists()), None)
        return self._pretrained(begun) | state if begun else state

    @functools.lru_cache(maxsize=1)  # noqa: B019  of one import, as long as it runs
    def _pretrained(self, file: Path) -> State:
        try:
            return read_tensors(file, nested=self.config.nested)
        except Unusable as error:
            raise Unusable(f"{file.name}, from which it began: {error}") from None


def _beside(file: Path) -> tuple[Path, Path]:
    return file.parent / PRETRAINED, file.parent.parent / PRETRAINED
