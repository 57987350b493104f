"""Needs of a density's training: this rank's share, and the memory of what its backward keeps."""

from dataclasses import dataclass

from dwf.backbones.shape import Shape
from dwf.densities.base_config import DensitySettings
from dwf.training.memory import numbers_in_bytes
from dwf.training.task import Share


@dataclass(frozen=True)
class Needs:
    """Arguments of `forecast.describe_training` and `refuse_no_room`, by name."""

    share: Share
    """Part of each batch that a rank has."""
    activations: int
    """Bytes that the backward needs of one micro-batch."""
    hints: tuple[str, ...]
    """Flags that lower these."""
    key: str = "density.training"
    """Dotted key of the training's settings."""

    @classmethod
    def of(cls, density: DensitySettings, shape: Shape, *, ranks: int) -> "Needs":
        """Return those of a density that trains a backbone.

        Args:
            density: its settings.
            shape: of the codes.
            ranks: how many there are; a training of the engine `plain` is of one.

        Raises:
            ConfigError: the batch cannot be shared by so many ranks.
        """
        training, backbone = density.training, density.backbone
        share = Share.of_first(training, ranks)
        kept = numbers_in_bytes(share.micro * backbone.kept_numbers(shape), training)
        hints = tuple(f"--density.backbone.{name}" for name in backbone.saves_memory)
        return cls(share, kept, hints)
