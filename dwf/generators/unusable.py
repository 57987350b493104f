"""Drawn networks that no zoo may hold: not finite, or with variances below zero.

Shape suffixes: B networks of a block, D numbers of a network.
"""

import numpy as np
import torch

from dwf.errors import WorkFailed
from dwf.generators.batchnorm import has_negative_variance
from dwf.zoo.layout import Layout


class Unusable:
    """Finds, counts and tells of them.

    Args:
        generator: name of the generator that drew them.
        layout: the networks' layout.
        statistics: what `batchnorm.source_of_statistics` says; only generated ones can be wrong.
    """

    def __init__(self, generator: str, layout: Layout, *, statistics: str):
        self._generator, self._layout, self._statistics = generator, layout, statistics
        self._infinite: list[int] = []
        self._negative: list[int] = []

    @property
    def count(self) -> int:
        """How many were found."""
        return len(set(self._infinite) | set(self._negative))

    def find(self, first: int, weights_BD: torch.Tensor) -> np.ndarray:
        """Return which networks of a block, numbered from `first`, cannot be used, bool_B."""
        infinite_B = ~weights_BD.isfinite().all(1)
        negative_B = torch.zeros_like(infinite_B)
        if self._statistics == "generated":
            negative_B = has_negative_variance(self._layout, weights_BD)
        for found_B, numbers in ((infinite_B, self._infinite), (negative_B, self._negative)):
            numbers += (first + torch.nonzero(found_B).squeeze(1)).tolist()
        return (infinite_B | negative_B).numpy()

    def refuse_any(self, drawn: int) -> None:
        """Raise `WorkFailed` if there are any among so many that were drawn."""
        if self._infinite:
            raise WorkFailed(
                f"{len(self._infinite)} of {drawn} samples of {self._generator} are not finite "
                f"(first: sample {self._infinite[0]}), so no zoo was written: try another --solver "
                "or more --steps, or fit the generator again with a lower learning rate"
            )
        if self._negative:
            raise WorkFailed(
                f"{len(self._negative)} of {drawn} samples of {self._generator} have running "
                f"variances of BatchNorm below zero (first: sample {self._negative[0]}), so no zoo "
                "was written: give --batchnorm recalibrated, or fit the generator with a codec "
                "whose setting buffers is false"
            )

    def refuse_fewer(self, kept: int, wanted: int, *, drawn: int) -> None:
        """Raise `WorkFailed` if fewer could be kept than are wanted."""
        if kept < wanted:
            raise WorkFailed(
                f"{kept} of {drawn} networks drawn from {self._generator} can be used, and "
                f"{wanted} are to be kept (not finite: {len(self._infinite)}, running variances of "
                f"BatchNorm below zero: {len(self._negative)}), so no zoo was written: raise "
                "selection.draws, or fit the generator again"
            )
