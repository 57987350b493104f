"""Settings of the networks that generators are made of, and the table of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from dwf.backbones.long_config import LongTransformerConfig
from dwf.backbones.settings import BackboneSettings, TokenBackboneSettings
from dwf.backbones.shape import Sections, Shape
from dwf.checked import Checked, need_even, need_odd, refuse_idle
from dwf.errors import ConfigError
from dwf.settings import Bounds, Count, Whole, find

if TYPE_CHECKING:
    from torch import nn

BACKBONES = {
    "mlp": "dwf.backbones.mlp:PublishedMLP",
    "residual_mlp": "dwf.backbones.mlp:ResidualMLP",
    "block_mlp": "dwf.backbones.mlp:BlockMLP",
    "conv1d": "dwf.backbones.conv1d:Conv1d",
    "transformer": "dwf.backbones.transformer:Transformer",
    "long_transformer": "dwf.backbones.long_transformer:LongTransformer",
    "neural_graph": "dwf.backbones.neural_graph:NeuralGraph",
    "recurrent": "dwf.backbones.recurrent:Recurrent",
}

AUTOENCODERS = {
    "strided": "dwf.backbones.vector_autoencoder:Strided",
    "folded": "dwf.backbones.vector_autoencoder:Folded",
    "perceptron": "dwf.backbones.vector_autoencoder:Perceptron",
}

Dropout = Annotated[float, Bounds(0, 0.99)]


@dataclass(frozen=True)
class PublishedMLPConfig(BackboneSettings):
    """The network of DeepWeightFlow (arXiv 2601.05052)."""

    reads_labels: ClassVar[bool] = True

    hidden: Annotated[int, Bounds(2)] = 512
    """Width of its first and third hidden layer; the second has half of it."""
    time_features: Count = 64
    """Width of the embedding of time."""
    dropout: Dropout = 0.1
    """Share of activations dropped after the first and second hidden layer."""
    kind: Literal["mlp"] = "mlp"
    """The architecture."""

    def multiplications(self, shape: Shape) -> float:
        """Return the multiplications of one evaluation for one vector."""
        return 2 * shape.size * self.hidden + self.hidden**2


@dataclass(frozen=True)
class ResidualMLPConfig(BackboneSettings):
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
        need_even(self, "time_features")

    def multiplications(self, shape: Shape) -> float:
        """Return the multiplications of one evaluation for one vector."""
        width, depth = self.width, self.depth
        modulation = (3 * depth + 2) * self.time_features * width
        return 2 * shape.size * width + 2 * depth * self.expansion * width**2 + modulation


@dataclass(frozen=True)
class BlockMLPConfig(BackboneSettings):
    """The denoiser of VAE-Diffusion: blocks of two layers, each with time added to its outputs."""

    width: Count = 256
    """Width of every layer."""
    depth: Count = 3
    """Blocks."""
    time_features: Annotated[int, Bounds(2)] = 128
    """Sines and cosines of time, and width of its embedding."""
    kind: Literal["block_mlp"] = "block_mlp"
    """The architecture."""

    def __post_init__(self):
        need_even(self, "time_features")

    def multiplications(self, shape: Shape) -> float:
        """Return the multiplications of one evaluation for one vector."""
        width, depth = self.width, self.depth
        time = self.time_features * (2 * self.time_features + depth * width)
        return 2 * shape.size * width + (2 * depth - 1) * width**2 + time


@dataclass(frozen=True)
class Conv1dConfig(BackboneSettings):
    """The denoiser of p-diff (arXiv 2402.13144): convolutions along a vector, down and up again."""

    channels: tuple[Count, ...] = (64, 128, 256, 512)
    """Channels of the stages on the way down; on the way up they come in reverse, and what the way
    down had at the same number of channels is added."""
    kernel: Count = 7
    """Numbers of the vector that one number of a layer sees; odd. Published: 7, and 3 of the
    stages `double`."""
    stage: Literal["single", "double"] = "single"
    """Layers of a stage: `single`, one convolution with BatchNorm and ELU (the second version);
    `double`, two, each after LeakyReLU and InstanceNorm (the first)."""
    time_features: Annotated[int, Bounds(2)] = 256
    """Sines and cosines of time."""
    time_width: Annotated[int, Bounds(2)] = 128
    """Width of the embedding of time, before it becomes a number for each place of the vector;
    published: as long as the vector."""
    kind: Literal["conv1d"] = "conv1d"
    """The architecture."""

    def __post_init__(self):
        if len(self.channels) < 2:
            raise ValueError(f"channels = {list(self.channels)}: two stages or more are needed")
        need_odd(self, "kernel")
        need_even(self, "time_features", "time_width")

    @property
    def steps(self) -> tuple[tuple[int, int], ...]:
        """Channels that enter and leave each stage, down and up again, from 1 to 1."""
        *others, last = self.channels
        return tuple(pairwise((1, *others, last, *reversed(others), 1)))

    def widest(self, shape: Shape) -> int:
        """Return how many numbers its largest layer has for one vector."""
        return shape.size * max(self.channels)

    def multiplications(self, shape: Shape) -> float:
        """Return the multiplications of one evaluation for one vector."""
        maps = sum(enter * leave for enter, leave in self.steps)
        if self.stage == "double":
            maps += sum(leave**2 for _, leave in self.steps[:-1]) + self.channels[0] ** 2
        return shape.size * (maps * self.kernel + self.time_width)


@dataclass(frozen=True)
class TransformerConfig(TokenBackboneSettings):
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
        if not self.positions:
            because = "positions = false makes all tokens of a layer exchangeable: set true"
            refuse_idle(self, "last_exchangeable", by=("positions",), because=because)

    @property
    def ignores_order(self) -> bool:
        """Whether all tokens of a section are a set to it."""
        return not self.positions

    @property
    def has_exchangeable(self) -> bool:
        """Whether there are sections of which the order of the tokens means nothing to it."""
        return not self.positions or self.last_exchangeable

    def exchangeable(self, sections: Sections) -> tuple[bool, ...]:
        """Return for each section whether its order means nothing; see the base."""
        if not self.positions:
            return (True,) * len(sections)
        return _last_alone(sections) if self.last_exchangeable else (False,) * len(sections)

    def num_ordered(self, sections: Sections) -> int:
        """Return how many tokens, from the first on, have positions."""
        pairs = zip(sections, self.exchangeable(sections), strict=True)
        return sum(count for (count, _), is_free in pairs if not is_free)

    def widest(self, shape: Shape) -> int:
        """Return how many numbers its largest layer has for one sequence."""
        return max(shape.size, shape.num_tokens * self.width * self.expansion)

    def multiplications(self, shape: Shape) -> float:
        """Return the multiplications of one evaluation for one sequence."""
        tokens, width = shape.num_tokens, self.width
        # Maps of each token, and modulation by time.
        in_a_block = tokens * (4 + 2 * self.expansion) + 6
        attention = 2 * tokens**2 * width
        return 2 * shape.size * width + self.depth * (in_a_block * width**2 + attention)


@dataclass(frozen=True)
class NeuralGraphConfig(TokenBackboneSettings):
    """Messages along the weights of an MLP, between its units (arXiv 2403.12143, 2504.03710)."""

    reads_graph: ClassVar[bool] = True

    width: Annotated[int, Bounds(2)] = 64
    """Numbers of each unit and of each weight."""
    depth: Count = 5
    """Blocks; a weight hears of units that are as many layers away."""
    expansion: Count = 2
    """Hidden units of a block's perceptron, as a multiple of `width`."""
    kind: Literal["neural_graph"] = "neural_graph"
    """The architecture."""

    def __post_init__(self):
        need_even(self, "width")

    @property
    def has_exchangeable(self) -> bool:
        """Whether there are sections of which the order of the tokens means nothing to it."""
        return True

    def exchangeable(self, sections: Sections) -> tuple[bool, ...]:
        """Return for each section whether the order of its tokens alone means nothing.

        That of an earlier hidden layer is also the order of the numbers in the next one's tokens.

        Args:
            sections: (tokens, numbers of each), in the order of the sequence.
        """
        return _last_alone(sections)

    def widest(self, shape: Shape) -> int:
        """Return how many numbers its largest layer has for one sequence."""
        numbers = sum(count * size for count, size in shape.sections or ())
        return max(shape.size, numbers * self.width)

    def multiplications(self, shape: Shape) -> float:
        """Return the multiplications of one evaluation for one sequence.

        Raises:
            ConfigError: the tokens are not those of an MLP; see `widths_of`.
        """
        numbers, width = shape.size, self.width
        of_units = sum(widths_of(shape.sections)) * (2 + 4 * self.expansion)
        return 2 * numbers * width + self.depth * (2 * numbers + of_units + 4) * width**2


@dataclass(frozen=True)
class RecurrentConfig(TokenBackboneSettings):
    """A recurrent trunk over places of tokens, and convolutions along each (arXiv 2501.11587)."""

    trunk: Literal["mamba", "lstm"] = "mamba"
    """Trunk: `mamba`, layers of a selective state space (arXiv 2312.00752; extra `recurrent`), or
    `lstm`. It sees the conditions and each token's place, and never the tokens themselves."""
    width: Annotated[int, Bounds(4)] = 256
    """Width of the trunk, and of the prototype that it makes for each token."""
    depth: Count = 2
    """Layers of the trunk."""
    state: Count = 16
    """Numbers of the state that each feature of a `mamba` trunk carries from token to token."""
    channels: tuple[Count, ...] = (64, 96, 64)
    """Channels between the convolutions along a token."""
    kernel: Count = 7
    """Numbers of a token that one number of a layer sees; odd."""
    time_features: Annotated[int, Bounds(2)] = 64
    """Sines and cosines of time."""
    kind: Literal["recurrent"] = "recurrent"
    """The architecture."""

    def __post_init__(self):
        if self.width % 4:
            raise ValueError(f"width = {self.width} must be a multiple of 4")
        if not self.channels:
            raise ValueError("channels = []: one or more are needed")
        need_odd(self, "kernel")
        need_even(self, "time_features")

    def widest(self, shape: Shape) -> int:
        """Return how many numbers its largest layer has for one sequence."""
        tokens, size = shape.num_tokens, shape.widest_token
        of_trunk = 2 * self.width * (self.state if self.trunk == "mamba" else 2)
        return max(shape.size, tokens * size * max(self.channels), tokens * of_trunk)

    def multiplications(self, shape: Shape) -> float:
        """Return the multiplications of one evaluation for one sequence."""
        tokens, size, width = shape.num_tokens, shape.widest_token, self.width
        maps = sum(enter * leave for enter, leave in pairwise((1, *self.channels, 1)))
        of_layer = 8 * width**2
        if self.trunk == "mamba":  # its maps in, out and within; the scan is not of matrices
            of_layer = 6.25 * width**2 + 4 * width * self.state
        return tokens * (size * maps * self.kernel + width * size + self.depth * of_layer)


def _last_alone(sections: Sections) -> tuple[bool, ...]:
    """Return true for the last hidden layer and what follows it: one token of the output."""
    first = max((i for i, (count, _) in enumerate(sections) if count > 1), default=len(sections))
    if first < len(sections) - 2:  # the last hidden layer has one unit: the order before it counts
        first += 1
    return tuple(i >= first for i in range(len(sections)))


def widths_of(sections: Sections) -> tuple[int, ...]:
    """Return the widths of the MLP whose tokens these are, from its inputs to its outputs.

    Raises:
        ConfigError: no MLP has such tokens.
    """
    *hidden, (num_last, outputs) = sections
    widths = [hidden[0][1] - 1 - (outputs if len(hidden) == 1 else 0)] if hidden else [0]
    fits = num_last == 1 and widths[0] > 0
    for i, (count, size) in enumerate(hidden):
        fits = fits and size == widths[-1] + 1 + (outputs if i == len(hidden) - 1 else 0)
        widths.append(count)
    if not fits:
        raise ConfigError(
            "backbone.kind = 'neural_graph' takes tokens of MLPs with biases, as codec neurons "
            "makes them: of each unit its incoming weights and bias, of the last hidden layer its "
            "outgoing weights, and one token of the output's biases. The codes are of (tokens, "
            f"numbers of each) {', '.join(map(str, map(tuple, sections)))}: choose the backbone "
            "transformer; of several architectures, one must be the widest in every layer"
        )
    return (*widths, outputs)


@dataclass(frozen=True)
class TokenAutoencoderConfig(Checked):
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


BackboneConfig = (
    PublishedMLPConfig
    | ResidualMLPConfig
    | BlockMLPConfig
    | Conv1dConfig
    | TransformerConfig
    | LongTransformerConfig
    | NeuralGraphConfig
    | RecurrentConfig
)
"""Union of all backbones' settings."""


def build_backbone(
    config: BackboneSettings, shape: Shape, *, told: Sequence[int] = ()
) -> "nn.Module":
    """Return a backbone: an `nn.Module` called as `module(x_BK, t_B, condition_BP, present_BK)`.

    It returns [B, K]. Its last two arguments may be left out: `condition_BP`, which then says
    nothing, and `present_BK`, which numbers a sequence has, where it has all; vectors have all.

    Args:
        config: its settings.
        shape: of x_BK.
        told: numbers of each condition that it is told: 1 is a standardised number, more are
            shares of categories. One that is told nothing takes no `condition_BP`.

    Raises:
        ConfigError: the backbone is for vectors and codes are sequences, or the reverse.
    """
    if config.takes_tokens and shape.sections is None:
        raise ConfigError(
            f"backbone.kind = '{config.kind}' takes tokens, and the codes are vectors of "
            f"{shape.size} numbers: choose a codec of tokens (neurons), or another backbone"
        )
    if shape.sections is not None and not config.takes_tokens:
        raise ConfigError(
            f"backbone.kind = '{config.kind}' takes vectors, and the codes are sequences of "
            f"{shape.num_tokens} tokens: choose the backbone transformer, long_transformer or "
            "neural_graph, or a codec of vectors (flat, pca)"
        )
    optional = {"told": tuple(told)} if told else {}
    return find(BACKBONES, config.kind)(config, shape, **optional)
