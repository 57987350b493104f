"""Settings of a codec, and the table of codecs."""

from dataclasses import dataclass
from typing import Annotated, Literal

from dwf.settings import Bounds, Count

CODECS = {
    "flat": "dwf.codecs.flat:FlatCodec",
    "pca": "dwf.codecs.pca:PcaCodec",
}


@dataclass(frozen=True)
class FlatConfig:
    """The weights themselves, shifted and scaled."""

    standardise: Literal["none", "per_tensor", "per_weight"] = "per_weight"
    """What has mean 0 and deviation 1 over the training networks: nothing, each tensor's numbers
    together, or each weight by itself."""
    buffers: bool = False
    """Cover BatchNorm's running statistics too; else they are the training networks' mean."""
    kind: Literal["flat"] = "flat"
    """The codec."""


@dataclass(frozen=True)
class PcaConfig:
    """Scores on the principal components of the training networks."""

    components: Count | None = None
    """How many components; default: all, one fewer than training networks."""
    variance: Annotated[float, Bounds(0, 1, open=True)] | None = None
    """Instead of a number: as few as capture this share of the training networks' variance."""
    whiten: bool = False
    """Scale each score to deviation 1 over the training networks."""
    buffers: bool = False
    """Cover BatchNorm's running statistics too; else they are the training networks' mean."""
    kind: Literal["pca"] = "pca"
    """The codec."""

    def __post_init__(self):
        if self.components is not None and self.variance is not None:
            raise ValueError(
                f"components = {self.components} and variance = {self.variance}: give one of them"
            )


CodecConfig = FlatConfig | PcaConfig
"""Union of all codecs' settings."""
