"""Noise of a flow's `source: fixed`: one vector for each training code, drawn once.

    RUN/codes/noise.npy    float32, [N, K], where the codes lie on a disk; gone with them

The numbers are one stream whatever holds them: on a CPU a fit learns the same bits from both.

Shape suffixes: N training codes, B codes of a batch, K numbers of a code.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from dwf.codecs.codes import map_values, write_array
from dwf.randomness import torch_stream
from dwf.ranks import world

FILE = "noise.npy"
# torch draws normal numbers by sixteens, and the last sixteen anew where a few are left over: parts
# of other lengths would be other numbers.
_SIXTEEN = 16
_BLOCK_NUMBERS = 2**20


class FixedNoise:
    """Rows of noise, in memory or on a disk; see `held` and `stored`.

    Args:
        values_NK: the noise, float32, on the device or mapped.
        device: where batches are.
    """

    def __init__(self, values_NK: torch.Tensor, device: torch.device):
        self.values_NK, self.device = values_NK, device

    @classmethod
    def held(
        cls, shape: tuple[int, int], std: float, *, seed: int, device: torch.device
    ) -> "FixedNoise":
        """Return noise of a standard deviation that is drawn on the device and stays there."""
        generator = torch_stream(seed, "bank", device=device.type)
        values_NK = torch.empty(shape, device=device)
        return cls(values_NK.normal_(0, std, generator=generator), device)

    @classmethod
    def stored(
        cls, shape: tuple[int, int], std: float, *, seed: int, device: torch.device, folder: Path
    ) -> "FixedNoise":
        """Return noise that is drawn into a file, or lies there already; ranks call it together.

        Raises:
            OSError: the disk is full.
        """
        file, ours = folder / FILE, world()

        def draw() -> None:
            if not file.exists():  # of an attempt before
                write_array(file, shape, parts=_drawn(math.prod(shape), std, seed))

        ours.on_first(draw)
        return cls(map_values(file), device)

    def take(self, rows_B: torch.Tensor, read: slice) -> torch.Tensor:
        """Return the noise of some rows, noise_BK on the device.

        Args:
            rows_B: their numbers, int64, on the device; may repeat.
            read: places among them whose noise is needed; that of the others is 0.
        """
        noise_BK = torch.zeros(len(rows_B), self.values_NK.shape[1], device=self.device)
        some = rows_B[read].to(self.values_NK.device)
        noise_BK[read] = self.values_NK.index_select(0, some).to(self.device)
        return noise_BK


def _drawn(count: int, std: float, seed: int) -> Iterator[torch.Tensor]:
    """Yield the numbers that one call would draw on the CPU, in parts."""
    generator = torch_stream(seed, "bank")
    size = max(1, _BLOCK_NUMBERS // _SIXTEEN) * _SIXTEEN
    start = 0
    while start < count:
        left = count - start
        # The last sixteen are drawn together with what is left over.
        num = left if left < size + _SIXTEEN else size
        yield torch.empty(num).normal_(0, std, generator=generator)
        start += num
