"""Corruptions: images that are changed, by torchvision's transforms; all networks see the same.

Shape suffixes: M images, X pixels of a stored image ([channels, height, width]).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torchvision.transforms import v2

from dwf.errors import ConfigError
from dwf.measurements.config import CorruptionConfig
from dwf.measurements.folder import Column
from dwf.measurements.measure import Block, Measure
from dwf.measurements.pictures import Pictures
from dwf.randomness import seed_of, seeded
from dwf.zoo.facts import Facts

_IMAGES_AT_ONCE = 1000


def _blur(strength: float, side: int) -> v2.Transform:
    """A kernel of three standard deviations, or what the image's edges can be mirrored for."""
    half = min(math.ceil(3 * strength), side - 1)
    return v2.GaussianBlur(2 * half + 1, strength)


TRANSFORMS: dict[str, Callable[[float, int], v2.Transform]] = {
    "noise": lambda strength, side: v2.GaussianNoise(sigma=strength),
    "blur": _blur,
    "jpeg": lambda strength, side: v2.JPEG((int(strength), int(strength))),
    "brightness": lambda strength, side: v2.ColorJitter(brightness=(strength, strength)),
    "contrast": lambda strength, side: v2.ColorJitter(contrast=(strength, strength)),
    "saturation": lambda strength, side: v2.ColorJitter(saturation=(strength, strength)),
    "posterize": lambda strength, side: v2.RandomPosterize(int(strength), p=1.0),
    "solarize": lambda strength, side: v2.RandomSolarize(255 * strength, p=1.0),
    "rotate": lambda strength, side: v2.RandomRotation((strength, strength)),
}
"""Name -> what makes the transform from its strength and the shorter side of an image."""


class Corruption(Measure):
    """Accuracy on changed images."""

    config: CorruptionConfig

    def columns(self, pictures: Pictures, facts: Facts) -> dict[str, Column]:
        """Return `NAME_accuracy`."""
        pictures.refuse_table(self.name)
        part = pictures.part(self.part, self.config.images)
        channels = part.images.shape[1]
        if self.config.transform == "saturation" and channels != 3:
            raise ConfigError(
                f"measures.{self.name}: saturation is of colour images, and these have {channels} "
                "channel: leave it out"
            )
        return {self._column: Column(self.name, self.part, images=len(part), is_share=True)}

    def prepare(self, pictures: Pictures) -> dict[str, np.ndarray]:
        """Return the changed images, uint8_MX."""
        part = pictures.part(self.part, self.config.images)
        seed = seed_of(pictures.seed, "corruption", self.prefix)
        return {self.prefix: corrupt(pictures.pixels(part), self.config, seed=seed).numpy()}

    def values(self, block: Block) -> dict[str, np.ndarray]:
        """Return the accuracy on them."""
        pictures = block.pictures
        part = pictures.part(self.part, self.config.images)
        changed_MX = torch.from_numpy(np.asarray(pictures.made[self.prefix]))
        found = block.answers_to(pictures.from_pixels(changed_MX, part))
        return {self._column: found.accuracy_N}

    @property
    def _column(self) -> str:
        return f"{self.prefix}_accuracy"


def corrupt(pixels_MX: torch.Tensor, config: CorruptionConfig, *, seed: int) -> torch.Tensor:
    """Return changed images, uint8_MX; the same for the same settings and seed.

    Args:
        pixels_MX: uint8, [M, channels, height, width].
        config: transform and strength.
        seed: of what is drawn.
    """
    transform = TRANSFORMS[config.transform](config.strength, min(pixels_MX.shape[2:]))
    changed = []
    for number, some_BX in enumerate(pixels_MX.split(_IMAGES_AT_ONCE)):
        with seeded(seed, "images", number):
            changed.append(transform(some_BX))
    return torch.cat(changed)
