"""Base of the settings of every architecture: what they say of its networks."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from dwf.checked import Checked
from dwf.errors import ConfigError
from dwf.settings import Count

T = TypeVar("T", bound="Architecture")


class Architecture(Checked, ABC):
    """Base of the settings of all architectures."""

    is_stacked = False
    """Whether networks of it run as one program of its own, see `functional.Stacked`."""

    is_chain = False
    """Whether each layer takes what the one before it gives, and nothing else does."""

    is_layered = False
    """Whether its weights are those of linear layers and convolutions, each with a bias or a
    BatchNorm behind it, and what is between them has none."""

    scales_units = False
    """Whether a hidden unit times a factor, and the weights that take it in by the inverse, is the
    same network."""

    is_foreign = False
    """Whether its networks are code that dwf did not write, which is tried before it is trained."""

    is_known = True
    """Whether its networks can be built and run; tensors that were imported without it cannot."""

    @property
    def named(self) -> str:
        """The setting that says which network it is, for errors."""
        return f"network.kind = {vars(self)['kind']!r}"

    @property
    def input_shape(self) -> tuple[int | None, ...] | None:
        """Shape of one input, with None for a side that may be any; None where it is not known."""
        return None

    @property
    @abstractmethod
    def num_classes(self) -> int | None:
        """Logits; None where their number is not known."""

    @abstractmethod
    def with_classes(self: T, classes: int) -> T:
        """Return the architecture with another number of logits.

        Raises:
            ConfigError: their number cannot be changed.
        """

    def with_hidden(self: T, units: Sequence[int]) -> T:
        """Return the architecture with other numbers of units in its hidden layers.

        Raises:
            ConfigError: it is no MLP, or has another number of hidden layers.
        """
        raise ConfigError(
            f"{list(units)} hidden units: {self.named} cannot be given other widths, only an mlp"
        )

    def multiplications(self, shape: tuple[int, ...]) -> int | None:
        """Return how many numbers a network multiplies to answer one input; None if not known.

        Those of convolutions, matrices and attention count, those of norms and activations do not.

        Args:
            shape: of the input.
        """
        return None

    def misfit(self, data: str, shape: tuple[int, ...], *, num_classes: int) -> str | None:
        """Return why a dataset does not fit, as far as the settings alone tell, and the cure.

        Args:
            data: the dataset in words.
            shape: of one prepared input.
            num_classes: its classes.
        """
        return None


class ImageArchitecture(Architecture):
    """Base of the settings of architectures that sort images of `channels` into `classes`."""

    channels: Count | tuple[Count, ...]
    classes: Count

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Shape of one image, with None for a side that may be any."""
        return (self.channels, None, None)

    @property
    def num_classes(self) -> int:
        """Logits."""
        return self.classes

    def with_classes(self: T, classes: int) -> T:
        """Return the architecture with another number of logits."""
        return dataclasses.replace(self, classes=classes)

    def multiplications(self, shape: tuple[int, ...]) -> int | None:
        """Return how many numbers a network multiplies; None of an image that it does not take."""
        from dwf.networks.cost import count_multiplications

        return count_multiplications(self, tuple(shape))
