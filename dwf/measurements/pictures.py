"""Images that networks are measured on: those of a part, or a choice of them drawn by the seed.

Shape suffixes: M images, X pixels of a stored image ([channels, height, width]).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from dwf.datasets.dataset import Dataset, Part
from dwf.datasets.known import known
from dwf.errors import ConfigError
from dwf.randomness import numpy_stream
from dwf.zoo.facts import Facts

PIXEL = 255
"""Largest value of a pixel of a picture that transforms take."""


@dataclass(frozen=True)
class Pictures:
    """Images of a dataset, as measures ask for them."""

    data: Dataset
    """The dataset."""
    largest: float | None
    """The largest stored value of a pixel; None of a table."""
    seed: int
    """Seed of the choice."""
    made: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Arrays that measures have prepared, by name."""

    @classmethod
    def of(
        cls, facts: Facts, seed: int, *, made: Mapping[str, np.ndarray] | None = None
    ) -> "Pictures":
        """Return the images that a zoo's networks are trained and scored on.

        Raises:
            ConfigError: networks that nobody can run.
            DataUnavailable: the dataset is not here.
        """
        data = facts.load_data()
        return cls(data, known(facts.data).largest, seed=seed, made=made or {})

    def part(self, name: str, images: int | None) -> Part:
        """Return images of a part, in its order; fewer where there are not so many.

        A choice of more images holds one of fewer.

        Args:
            name: `train`, `val` or `test`.
            images: how many; None: all.

        Raises:
            ConfigError: the part is empty.
        """
        part = self.data.part(name)
        if not len(part):
            raise ConfigError(
                f"part = {name!r}: the dataset has no such images; give another part, or train the "
                "zoo with data.validation above 0"
            )
        if images is None or images >= len(part):
            return part
        order = numpy_stream(self.seed, "images of part", name).permutation(len(part))
        chosen = torch.from_numpy(np.sort(order[:images]))
        return replace(part, index=part.index[chosen])

    def refuse_table(self, name: str) -> None:
        """Raise `ConfigError` where a measure is of pixels, and the data have none."""
        if self.largest is None:
            raise ConfigError(
                f"measures.{name}: pixels are changed, and these networks take rows of a table: "
                "leave it out"
            )

    def pixels(self, part: Part) -> torch.Tensor:
        """Return the stored images of a part, uint8_MX from 0 to 255."""
        stored = part.images.index_select(0, part.index)
        if self.largest == PIXEL and stored.dtype == torch.uint8:
            return stored
        return (stored.float() * (PIXEL / self.largest)).round().to(torch.uint8)

    def from_pixels(self, pixels_MX: torch.Tensor, part: Part) -> Part:
        """Return a part with other images in place of its own.

        Args:
            pixels_MX: uint8 from 0 to 255, in the order of the part.
            part: whose labels they have.
        """
        stored = pixels_MX
        if self.largest != PIXEL:
            stored = pixels_MX.float() * (self.largest / PIXEL)
        labels = part.labels.index_select(0, part.index)
        return Part(stored, labels, index=torch.arange(len(labels)))
