"""Base of the settings of every codec: what a codec can do."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, TypeVar

from dwf.backbones.shape import Shape
from dwf.checked import Checked
from dwf.training.config import LoopConfig

Settings = TypeVar("Settings", bound="CodecSettings")


class CodecSettings(Checked):
    """Base of a codec's settings: what the codec can do, and settings that not all codecs have."""

    kind: ClassVar[str]
    title: ClassVar[str]
    """Words for its codes in a title."""
    mixes: ClassVar[bool] = False
    """Whether codes of several architectures are of one sequence, with masks; see `CodeShape`."""
    is_lossless: ClassVar[bool] = False
    """Whether all that it covers comes back, up to rounding."""
    makes_tokens: ClassVar[bool] = False
    """Whether codes are sequences of tokens; else vectors."""
    has_derivative: ClassVar[bool] = False
    """Whether gradients reach codes through `decode`."""
    orders_units: ClassVar[bool] = False
    """Whether the order of a hidden layer's tokens is that of numbers in the next layer's."""
    tiles: ClassVar[bool] = False
    """Whether tokens also become networks of architectures that it was not fitted to; see
    `codecs/tokens/tiling.py`."""
    buffers: ClassVar[bool] = False
    """Whether BatchNorm's running statistics are covered; a setting of most codecs."""
    training: ClassVar[LoopConfig | None] = None
    """How it learns; a setting of those that train, see `TrainedCodec`."""
    has_prior: ClassVar[bool] = False
    """Whether it says how codes are distributed, so that it can draw networks while it learns."""

    exchanges_tokens: ClassVar[bool] = False
    """Whether a unit's token means the same in every network, so that those of several can be put
    together to one; see `evaluation.exchanged`."""
    draws_rest: ClassVar[bool] = False
    """Whether `decode` draws what codes leave out; see `Codec.draw` and `Codec.decode_beside`."""
    reserves_widths: ClassVar[bool] = False
    """Whether networks of widths that no zoo has can be decoded; see `FunctionsConfig`."""

    @property
    def looks_at_samples(self) -> bool:
        """Whether `fit` is given a judge of networks drawn in training."""
        return self.training is not None and self.training.sample_every > 0

    @property
    def tells_graph(self) -> bool:
        """Whether a token is a unit of an MLP, each of its numbers one weight or the bias."""
        return False

    @property
    def has_open_size(self) -> bool:
        """Whether only the largest size that a code can have is known before the fit."""
        return False

    @property
    def words(self) -> str:
        """Name of the kind, with what tells it apart, for an error."""
        return self.kind

    def with_steps(self: Settings, steps: int) -> Settings:
        """Return those of a codec that trains with so many steps; see `LoopConfig.with_steps`."""
        return replace(self, training=self.training.with_steps(steps))

    def shape_of_mlp(self, widths: Sequence[int], num_train: int) -> Shape | None:
        """Return the shape of codes of MLPs, the largest it can be; None where it is not known.

        As `Codec.planned_shape` returns it, and without torch.

        Args:
            widths: of the layers, from inputs to outputs; all layers have biases.
            num_train: how many networks the codec learns from.
        """
        return None


def count_numbers(widths: Sequence[int]) -> int:
    """Return how many weights and biases an MLP of such layers has."""
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise(widths))
