"""Settings of a dataset."""

from dataclasses import dataclass
from typing import Literal

from dwf.settings import Count, Fraction, Whole


@dataclass(frozen=True)
class DataConfig:
    """Which data, how it is cut, and how it is prepared for a network."""

    kind: Literal["mnist", "fashion_mnist", "cifar10", "iris", "digits"]
    """The dataset."""
    validation: Fraction = 0.1
    """Share of the training images that is held out for choices; below 1."""
    seed: Whole = 0
    """Seed of that cut (and, where none is published, of the cut into training and test)."""
    scaling: Literal["unit", "symmetric", "standard"] = "unit"
    """`unit`: into [0, 1] (ToTensor; tables by the training rows' minimum and maximum);
    `symmetric`: into [-1, 1] likewise; `standard`: mean 0, deviation 1 over the training part, per
    channel or feature."""
    grey: bool = False
    """Colour images become one channel, their luminance (ITU-R BT.601)."""
    size: Count | None = None
    """Pixels of a side that images are made smaller to, by the mean over the area that each new
    pixel covers (14 for MNIST: blocks of 2 x 2); default: as published."""
    train_images: Count | None = None
    """Train on so many of the training images, drawn by the seed; default: all."""
    test_images: Count | None = None
    """Test on so many of the test images, drawn by the seed; default: all."""
    classes: tuple[Whole, ...] | None = None
    """Labels whose images are kept in every part; they become 0, 1, ... in the order given here;
    default: all."""

    def __post_init__(self) -> None:
        """Refuse classes that are no choice of classes."""
        if self.classes is None:
            return
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(
                f"classes = {list(self.classes)}: give at least two labels, each once, or leave "
                "classes out to keep all"
            )

    @property
    def title(self) -> str:
        """The dataset in words, with size of images and classes where these are not all of it."""
        size = f" at {self.size} x {self.size}" if self.size else ""
        some = f", classes {' '.join(map(str, self.classes))}" if self.classes else ""
        return f"{self.kind}{size}{some}"
