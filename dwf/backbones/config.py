"""Settings of the networks that generators are made of, and the table of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from dwf.errors import ConfigError
from dwf.settings import Bounds, Count, Whole, find

BACKBONES = {
    "mlp": "dwf.backbones.mlp:PublishedMLP",
    "residual_mlp": "dwf.backbones.mlp:ResidualMLP",
    "transformer": "dwf.backbones.transformer:Transformer",
    "neural_graph": "dwf.backbones.neural_graph:NeuralGraph",
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


@dataclass(frozen=True)
class TransformerConfig:
    """Attention between tokens; without positions those of one layer are exchangeable."""

    width: Count = 128
    """Width of the residual stream."""
    heads: Count = 4
    """Attention heads; they share the width."""
    depth: Count = 3
    """Blocks of attention and a two-layer perceptron."""
    expansion: Count = 4
    """Hidden units of a block's perceptron, as a multiple of `width`."""
    positions: bool = False
    """Add a learned vector for each place in the sequence: for codes whose order means something
    (latents of `sane`, tokens of aligned networks). Then tokens are not exchangeable."""
    last_exchangeable: bool = False
    """With `positions`: none for the last layer of several tokens, and what follows it. For codes
    `neurons` of networks with several hidden layers, of which the order of the units matters to the
    next layer's tokens in all layers but the last hidden one."""
    kind: Literal["transformer"] = "transformer"
    """The architecture."""

    def __post_init__(self):
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width = {self.width} must be a multiple of 2 x heads = {2 * self.heads}"
            )
        if self.last_exchangeable and not self.positions:
            raise ValueError(
                "last_exchangeable = true is for positions = true: without positions all tokens of "
                "a layer are exchangeable already; leave it out, or set positions"
            )

    def exchangeable(self, groups: Sequence[tuple[int, int]]) -> tuple[bool, ...]:
        """Return for each group of tokens whether their order means nothing to the network.

        Args:
            groups: (tokens, numbers of each), in the order of the sequence.
        """
        if not self.positions:
            return (True,) * len(groups)
        return _last_alone(groups) if self.last_exchangeable else (False,) * len(groups)

    def num_ordered(self, groups: Sequence[tuple[int, int]]) -> int:
        """Return how many tokens, from the first on, have positions."""
        pairs = zip(groups, self.exchangeable(groups), strict=True)
        return sum(count for (count, _), is_free in pairs if not is_free)

    def widest(self, groups: Sequence[tuple[int, int]]) -> int:
        """Return how many numbers its largest layer has for one sequence."""
        return sum(count for count, _ in groups) * self.width * self.expansion


@dataclass(frozen=True)
class NeuralGraphConfig:
    """Messages along the weights of an MLP, between its units (arXiv 2403.12143, 2504.03710)."""

    width: Annotated[int, Bounds(2)] = 64
    """Numbers of each unit and of each weight."""
    depth: Count = 5
    """Blocks; a weight hears of units that are as many layers away."""
    expansion: Count = 2
    """Hidden units of a block's perceptron, as a multiple of `width`."""
    kind: Literal["neural_graph"] = "neural_graph"
    """The architecture."""

    def __post_init__(self):
        if self.width % 2:
            raise ValueError(f"width = {self.width} must be even")

    def exchangeable(self, groups: Sequence[tuple[int, int]]) -> tuple[bool, ...]:
        """Return for each group whether the order of its tokens alone means nothing.

        That of an earlier hidden layer is also the order of the numbers in the next one's tokens.

        Args:
            groups: (tokens, numbers of each), in the order of the sequence.
        """
        return _last_alone(groups)

    def widest(self, groups: Sequence[tuple[int, int]]) -> int:
        """Return how many numbers its largest layer has for one sequence."""
        return sum(count * size for count, size in groups) * self.width


def _last_alone(groups: Sequence[tuple[int, int]]) -> tuple[bool, ...]:
    """Return true for the last hidden layer and what follows it: one token of the output."""
    first = max((i for i, (count, _) in enumerate(groups) if count > 1), default=len(groups))
    if first < len(groups) - 2:  # the last hidden layer has one unit: the order before it counts
        first += 1
    return tuple(i >= first for i in range(len(groups)))


@dataclass(frozen=True)
class TokenAutoencoderConfig:
    """The autoencoder of SANE (arXiv 2406.09997): one latent vector for each token."""

    width: Count = 256
    """Width of the residual stream."""
    heads: Count = 4
    """Attention heads; they share the width."""
    depth: Whole = 4
    """Blocks of the encoder, and as many of the decoder; 0: two linear maps."""
    latent: Count = 64
    """Numbers of a token's latent vector."""
    expansion: Count = 4
    """Hidden units of a block's perceptron, as a multiple of `width`."""
    dropout: Dropout = 0.0
    """Share dropped of what enters the blocks, of attention, and of what a block adds."""
    positions: Literal["learned", "sinusoidal"] = "learned"
    """Embedding of a token's number, layer and unit: three learned tables, as published, or sines
    and cosines under a linear map, for sequences of any length."""
    max_positions: tuple[Count, ...] | None = None
    """Rows of the three learned tables; default: what the zoos' networks need."""
    bias: bool = False
    """Give the blocks' linear maps and norms biases."""
    projection: Whole = 30
    """Width of the head for the contrastive loss; 0: no head."""
    checkpointing: bool = False
    """Compute each block again in the backward pass: less memory, a third more arithmetic."""

    def __post_init__(self):
        if self.width % self.heads or self.width % 4:
            raise ValueError(
                f"width = {self.width} must be a multiple of heads = {self.heads}, and of 4"
            )
        if self.max_positions is not None and len(self.max_positions) != 3:
            raise ValueError(
                f"max_positions = {list(self.max_positions)}: three numbers are needed, of "
                "(tokens, layers, units)"
            )


TokenBackboneConfig = TransformerConfig | NeuralGraphConfig
"""Union of the settings of backbones that take sequences of tokens."""

BackboneConfig = PublishedMLPConfig | ResidualMLPConfig | TokenBackboneConfig
"""Union of all backbones' settings."""


def widest(
    config: BackboneConfig, num_features: int, groups: Sequence[tuple[int, int]] | None
) -> int:
    """Return how many numbers the largest layer has for one code; of vectors, those of the code.

    Args:
        config: the backbone's settings.
        num_features: numbers of a code.
        groups: of sequences, see `build_backbone`.
    """
    return max(num_features, config.widest(groups)) if groups else num_features


def build_backbone(
    config: BackboneConfig,
    num_features: int,
    groups: Sequence[tuple[int, int]] | None = None,
    conditioned: bool = False,
) -> Any:
    """Return a backbone: an `nn.Module` called as `module(x_BK, t_B, condition_B, present_BK)`.

    It returns [B, K]. Its last two arguments may be left out: `condition_B` where `conditioned` is
    false, `present_BK`, which numbers a sequence has, where it has all; vectors have all.

    Args:
        config: its settings.
        num_features: K, numbers of a code.
        groups: where a code is a sequence, for each of its layers (tokens, numbers of each): x_BK
            holds them token after token. None: codes are vectors.
        conditioned: whether it learns what a condition means.

    Raises:
        ConfigError: the backbone is for vectors and codes are sequences, or the reverse; or it
            takes no condition.
    """
    takes_tokens = isinstance(config, TokenBackboneConfig)
    if takes_tokens and groups is None:
        raise ConfigError(
            f"backbone.kind = '{config.kind}' takes tokens, and the codes are vectors of "
            f"{num_features} numbers: choose a codec of tokens (neurons), or another backbone"
        )
    if groups is not None and not takes_tokens:
        raise ConfigError(
            f"backbone.kind = '{config.kind}' takes vectors, and the codes are sequences of "
            f"{sum(count for count, _ in groups)} tokens: choose the backbone transformer or "
            "neural_graph, or a codec of vectors (flat, pca)"
        )
    if conditioned and isinstance(config, PublishedMLPConfig):
        raise ConfigError(
            f"backbone.kind = '{config.kind}', as published, takes no condition: choose the "
            "backbone transformer, neural_graph or residual_mlp, or set condition = none"
        )
    optional = {"conditioned": True} if conditioned else {}
    return find(BACKBONES, config.kind)(
        config, groups if takes_tokens else num_features, **optional
    )
