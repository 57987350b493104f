"""Settings of the networks that generators are made of, and the table of them."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from dwf.settings import Bounds, Count, find

BACKBONES = {
    "mlp": "dwf.backbones.mlp:PublishedMLP",
    "residual_mlp": "dwf.backbones.mlp:ResidualMLP",
}

Dropout = Annotated[float, Bounds(0, 0.99)]


@dataclass(frozen=True)
class PublishedMLPConfig:
    """The network of DeepWeightFlow (arXiv 2601.05052)."""

    hidden: Annotated[int, Bounds(2)] = 512
    """Width of its first and third hidden layer; the second has half of it."""
    time_features: Count = 64
    """Width of the embedding of time."""
    dropout: Dropout = 0.1
    """Share of activations dropped after the first and second hidden layer."""
    kind: Literal["mlp"] = "mlp"
    """The architecture."""


@dataclass(frozen=True)
class ResidualMLPConfig:
    """Residual blocks that time scales, shifts and gates."""

    width: Count = 256
    """Width of the residual stream."""
    depth: Count = 3
    """Residual blocks."""
    expansion: Count = 2
    """Hidden units of a block, as a multiple of `width`."""
    dropout: Dropout = 0.0
    """Share of a block's hidden units dropped."""
    time_features: Annotated[int, Bounds(2)] = 64
    """Sines and cosines of time."""
    kind: Literal["residual_mlp"] = "residual_mlp"
    """The architecture."""

    def __post_init__(self):
        if self.time_features % 2:
            raise ValueError(f"time_features = {self.time_features} must be even")


BackboneConfig = PublishedMLPConfig | ResidualMLPConfig
"""Union of all backbones' settings."""


def build_backbone(config: BackboneConfig, num_features: int) -> Any:
    """Return a backbone: an `nn.Module` called as `module(x_BK, t_B)`, which returns [B, K].

    Args:
        config: its settings.
        num_features: K, numbers of a code.
    """
    return find(BACKBONES, config.kind)(config, num_features)
