"""Settings of a codec, and the table of codecs."""

from dataclasses import dataclass
from typing import Annotated, Literal

from dwf.settings import Bounds, Count

CODECS = {
    "flat": "dwf.codecs.flat:FlatCodec",
    "pca": "dwf.codecs.pca:PcaCodec",
    "neurons": "dwf.codecs.neurons:NeuronsCodec",
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


@dataclass(frozen=True)
class NeuronsConfig:
    """One token per hidden unit of an MLP, with all weights that touch it alone."""

    standardise: Literal["none", "per_feature", "per_weight"] = "per_feature"
    """What has mean 0 and deviation 1 over the training networks: nothing, each feature of a
    layer's units together, which leaves units exchangeable, or each weight by itself."""
    kind: Literal["neurons"] = "neurons"
    """The codec."""


CodecConfig = FlatConfig | PcaConfig | NeuronsConfig
"""Union of all codecs' settings."""
