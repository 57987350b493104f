"""A dataset: mapped arrays, cut into train, val and test, and how they are prepared.

Shape suffixes: A images of a stored array, M images of a part, B images of a batch, C channels.
"""

from dataclasses import dataclass

import torch

LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey image (ITU-R BT.601)."""


@dataclass(frozen=True)
class Part:
    """Some images of a stored array: train, val or test."""

    images: torch.Tensor
    """The whole stored array, shape [A, *shape], uint8 (images) or float32 (tables), mapped."""
    labels: torch.Tensor
    """int64, shape [A]."""
    index: torch.Tensor
    """Which of them are this part's, int64, shape [M]."""

    def __len__(self) -> int:
        return len(self.index)

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (images, labels) at positions of this part, int64 of shape [B], as stored."""
        rows = self.index.index_select(0, positions)
        return self.images.index_select(0, rows), self.labels.index_select(0, rows)


@dataclass(frozen=True)
class Dataset:
    """Images or rows of a table with labels, and their preparation for a network."""

    train: Part
    val: Part
    test: Part
    num_classes: int
    scale: torch.Tensor
    """Prepared = stored * scale + shift; broadcast against [B, *shape]."""
    shift: torch.Tensor | None
    """None where nothing is added."""
    grey: bool = False
    """Whether colour images are made grey first."""

    def part(self, name: str) -> Part:
        """Return the part called `train`, `val` or `test`."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one prepared input: [channels, height, width], or [features]."""
        stored = tuple(self.train.images.shape[1:])
        return (1, *stored[1:]) if self.grey else stored

    def prepare(self, stored: torch.Tensor) -> torch.Tensor:
        """Return stored inputs, [..., *stored shape], as a network takes them, [..., *shape]."""
        prepared = luminance(stored) if self.grey else stored.to(torch.float32, copy=True)
        prepared.mul_(self.scale.to(stored.device))
        return prepared if self.shift is None else prepared.add_(self.shift.to(stored.device))


def luminance(stored: torch.Tensor) -> torch.Tensor:
    """Return colour images of shape [..., 3, height, width] as grey ones, [..., 1, height, width].

    float32, in the range of what is stored.
    """
    shares_C11 = torch.tensor(LUMINANCE, device=stored.device).view(-1, 1, 1)
    return (stored * shares_C11).sum(-3, keepdim=True)
