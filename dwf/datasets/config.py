"""Settings of a dataset."""

from dataclasses import dataclass
from typing import Literal

from dwf.settings import Fraction, Whole


@dataclass(frozen=True)
class DataConfig:
    """Which data, how it is cut, and how it is prepared for a network."""

    kind: Literal["mnist", "fashion_mnist", "cifar10", "iris", "digits"]
    """The dataset."""
    validation: Fraction = 0.1
    """Share of the training images that is held out for choices; below 1."""
    seed: Whole = 0
    """Seed of that cut (and, where none is published, of the cut into training and test)."""
    scaling: Literal["unit", "standard"] = "unit"
    """`unit`: into [0, 1] (ToTensor; tables by the training rows' minimum and maximum); `standard`:
    mean 0, deviation 1 over the training part, per channel or feature."""
