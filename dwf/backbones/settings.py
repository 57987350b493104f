"""Bases of the settings of backbones: what a backbone takes, and what that costs."""

from abc import ABC, abstractmethod
from typing import ClassVar

from dwf.backbones.shape import Sections, Shape
from dwf.checked import Checked


class BackboneSettings(Checked, ABC):
    """Base of a backbone's settings: what the backbone takes, and what that costs."""

    kind: ClassVar[str]
    takes_tokens: ClassVar[bool] = False
    """Whether it takes sequences of tokens; else vectors."""
    takes_masks: ClassVar[bool] = False
    """Whether sequences may lack some of their numbers."""
    reads_labels: ClassVar[bool] = False
    """Whether a category is one number to it, so that it cannot be told sets of classes."""
    reads_graph: ClassVar[bool] = False
    """Whether a token must be a unit of an MLP, each of its numbers one weight or the bias."""

    @abstractmethod
    def multiplications(self, shape: Shape) -> float:
        """Return the multiplications of one evaluation for one vector, in its large matrices."""

    def widest(self, shape: Shape) -> int:
        """Return how many numbers the largest layer has for one vector; at least its own."""
        return shape.size

    def kept_numbers(self, shape: Shape) -> float:
        """Return how many numbers the backward needs for one vector, for plans; 0: not known."""
        return 0

    @property
    def saves_memory(self) -> tuple[str, ...]:
        """Names of flags that would lower `kept_numbers`."""
        return ()

    @property
    def ignores_order(self) -> bool:
        """Whether all tokens of a section are a set to it."""
        return False

    @property
    def has_exchangeable(self) -> bool:
        """Whether there are sections of which the order of the tokens means nothing to it."""
        return False

    def exchangeable(self, sections: Sections) -> tuple[bool, ...]:
        """Return for each section of tokens whether their order means nothing to the network.

        Args:
            sections: (tokens, numbers of each), in the order of the sequence.
        """
        return (False,) * len(sections)


class TokenBackboneSettings(BackboneSettings):
    """Base of the settings of backbones over sequences, such as `TokenBackbone`."""

    takes_tokens = True
    takes_masks = True
