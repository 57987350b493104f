"""Standardised codes as a learnt density trains on them, held or read from a disk.

Shape suffixes: N codes, B codes of a batch, K numbers of a code, P numbers of all conditions, A
architectures.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dwf.codecs.codes import Codes
from dwf.densities.fixed_noise import FixedNoise
from dwf.densities.scaling import Scaling, vectors

ALL = slice(None)


class Learnable(ABC):
    """Codes that batches are taken of."""

    size: int
    """K."""
    device: torch.device
    """Where batches are."""

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def take(self, rows_B: torch.Tensor, read: slice = ALL) -> "Examples":
        """Return those of some rows, which may repeat.

        Args:
            rows_B: their numbers, int64, on the device.
            read: places among them whose codes are needed; those of the others may be 0.
        """

    @abstractmethod
    def fixed_noise(self, std: float, *, seed: int) -> FixedNoise:
        """Return noise of a standard deviation, a row for each, that lies where the codes lie.

        Ranks call it together.

        Args:
            std: the deviation.
            seed: of the noise.
        """

    def blocks(self, num: int) -> Iterator["Examples"]:
        """Yield all, `num` at a time, in order."""
        yield from map(self.take, torch.arange(len(self), device=self.device).split(num))


@dataclass(frozen=True)
class Examples(Learnable):
    """Standardised codes, and what is known of each; all on the device."""

    codes_NK: torch.Tensor
    """float32; of several architectures, 0 where a network has no number."""
    condition_NP: torch.Tensor | None = None
    """Standardised conditions, NaN for none; None where the density is told nothing."""
    kind_N: torch.Tensor | None = None
    """int64, of several architectures: which each is of."""
    present_AK: torch.Tensor | None = None
    """bool, of several architectures: which numbers each has."""
    sizes: tuple[int, ...] = ()
    """Numbers of each condition, P in all."""

    @property
    def size(self) -> int:
        """K."""
        return self.codes_NK.shape[1]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.codes_NK.device

    def __len__(self) -> int:
        return len(self.codes_NK)

    def take(self, rows_B: torch.Tensor, read: slice = ALL) -> "Examples":
        """Return those of some rows; all are read. See the base."""

        def of_rows(part: torch.Tensor | None) -> torch.Tensor | None:
            return None if part is None else part.index_select(0, rows_B)

        return Examples(
            codes_NK=self.codes_NK.index_select(0, rows_B),
            condition_NP=of_rows(self.condition_NP),
            kind_N=of_rows(self.kind_N),
            present_AK=self.present_AK,
            sizes=self.sizes,
        )

    def fixed_noise(self, std: float, *, seed: int) -> FixedNoise:
        """Return noise that is held on the device; see the base."""
        return FixedNoise.held(tuple(self.codes_NK.shape), std, seed=seed, device=self.device)

    @property
    def present_NK(self) -> torch.Tensor | None:  # noqa: N802
        """Which numbers each has; None: all."""
        return None if self.kind_N is None else self.present_AK[self.kind_N]


class StoredExamples(Learnable):
    """Examples whose codes stay on a disk: of a batch, the rows that are needed are read.

    Args:
        codes: mapped, in their own units.
        scaling: to standardised units; on the device.
        known: what else is known of each, with codes of no numbers.
        folder: for what is as large as the codes; None where nothing is learnt from them.
    """

    def __init__(
        self, codes: Codes, scaling: Scaling, *, known: Examples, folder: Path | None = None
    ):
        self.codes, self.scaling, self.known, self.folder = codes, scaling, known, folder
        self.size, self.device = codes.shape.size, known.device

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows_B: torch.Tensor, read: slice = ALL) -> Examples:
        """Return those of some rows; 0 for codes that are not read. See the base."""
        batch = self.known.take(rows_B)
        present_BK = batch.present_NK
        codes_BK = torch.zeros(len(rows_B), self.size, device=self.device)
        codes_BK[read] = self.scaling.apply(
            vectors(self.codes.take(rows_B[read].cpu())).to(self.device),
            None if present_BK is None else present_BK[read],
        )
        return replace(batch, codes_NK=codes_BK)

    def fixed_noise(self, std: float, *, seed: int) -> FixedNoise:
        """Return noise that lies in a file of `folder`; see the base."""
        shape, where = (len(self), self.size), {"device": self.device, "folder": self.folder}
        return FixedNoise.stored(shape, std, seed=seed, **where)
