"""Codes of a run that a density learns from, kept on its disk where they are too many to hold.

    RUN/codes/train.npy, val.npy    float32, [N, K] or [N, T, C]; gone when the density is fitted

and beside them what else is as large, as the noise of a flow's `source: fixed`.

A run that goes on maps what its last attempt wrote; networks are coded once.

Shape suffixes: N networks.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes, map_values
from dwf.ranks import world
from dwf.run_folder import LEFTOVERS, RunFolder, sweep
from dwf.zoo.moments import Sources

FOLDER = "codes"


class CodeStore:
    """Codes of a run, in memory or on its disk; ranks call its methods together.

    Args:
        run: of a generator, held by this program alone.
    """

    def __init__(self, run: RunFolder):
        self.folder = run.path / FOLDER

    def codes(self, name: str, codec: Codec, *, sources: Sources) -> Codes:
        """Return the codes of networks; those of an attempt before, where they are there.

        Args:
            name: of the file.
            codec: fitted; the same in each attempt.
            sources: networks; the same in each attempt.

        Raises:
            ShapeMismatch, OSError: see `Codec.encode_zoo`.
        """
        file = self.folder / f"{name}.npy"
        if not world().on_first(lambda: self._is_whole(file)):
            return codec.encode_zoo(sources, file)
        some = [(zoo, rows) for zoo, rows in sources if len(rows)]
        each = [
            codec.encode(torch.from_numpy(zoo.read(rows[:1])), zoo.layout) for zoo, rows in some
        ]
        kind_N = None
        if each[0].shape.is_mixed:
            kinds = [
                codes.kind_N.expand(len(rows)) for codes, (_, rows) in zip(each, some, strict=True)
            ]
            kind_N = torch.cat(kinds)
        return replace(each[0], values=map_values(file), kind_N=kind_N, is_mapped=True)

    def _is_whole(self, file: Path) -> bool:
        sweep(self.folder.glob(LEFTOVERS))  # of an attempt that was killed
        return file.exists()

    def remove(self) -> None:
        """Remove what lies on the disk; codes that are mapped stay good on this machine."""
        shutil.rmtree(self.folder, ignore_errors=True)
