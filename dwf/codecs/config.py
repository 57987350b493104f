"""Settings of a codec, and the table of codecs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from dwf.backbones.autoencoder_config import (
    FoldedAutoencoderConfig,
    PerceptronAutoencoderConfig,
    StridedAutoencoderConfig,
    VectorAutoencoderSettings,
)
from dwf.backbones.config import TokenAutoencoderConfig
from dwf.backbones.shape import Shape
from dwf.checked import Checked, refuse_idle
from dwf.codecs.base_config import CodecSettings, Settings, count_numbers
from dwf.codecs.functions_config import FunctionsConfig
from dwf.settings import Bounds, Count, Fraction, NonNegative, Positive, Whole
from dwf.training.config import LoopComputeConfig, LoopConfig

CODECS = {
    "flat": "dwf.codecs.flat:FlatCodec",
    "pca": "dwf.codecs.pca:PcaCodec",
    "neurons": "dwf.codecs.neurons:NeuronsCodec",
    "functions": "dwf.codecs.functions:FunctionsCodec",
    "tokens": "dwf.codecs.tokens:TokensCodec",
    "sane": "dwf.codecs.sane:SaneCodec",
    "conv_autoencoder": "dwf.codecs.autoencoder:AutoencoderCodec",
    "vae": "dwf.codecs.autoencoder:AutoencoderCodec",
}

Packing = Literal["rows", "dense"]


@dataclass(frozen=True)
class FlatConfig(CodecSettings):
    """The weights themselves, shifted and scaled."""

    title: ClassVar[str] = "flat weights"
    is_lossless: ClassVar[bool] = True
    has_derivative: ClassVar[bool] = True

    standardise: Literal["none", "per_tensor", "per_weight"] = "per_weight"
    """Numbers brought to mean 0 and deviation 1 over the training networks: none, each tensor's
    together, or each weight by itself."""
    buffers: bool = False
    """Cover BatchNorm's running statistics too; else they are the training networks' mean."""
    kind: Literal["flat"] = "flat"
    """The codec."""

    def shape_of_mlp(self, widths: Sequence[int], num_train: int) -> Shape:
        """Return vectors of all numbers; see the base."""
        return Shape(count_numbers(widths))


@dataclass(frozen=True)
class PcaConfig(CodecSettings):
    """Scores on the principal components of the training networks."""

    title: ClassVar[str] = "principal components"

    components: Count | None = None
    """How many components; default: all, one fewer than training networks."""
    variance: Annotated[float, Bounds(0, 1, open=True)] | None = None
    """Share of the training networks' variance to capture, with as few components as possible."""
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

    @property
    def has_open_size(self) -> bool:
        """Whether only the largest size that a code can have is known before the fit."""
        return self.variance is not None

    def shape_of_mlp(self, widths: Sequence[int], num_train: int) -> Shape:
        """Return vectors of all components, or of so many as are asked for; see the base."""
        return Shape(self.components or max(min(num_train - 1, count_numbers(widths)), 0))


@dataclass(frozen=True)
class NeuronsConfig(CodecSettings):
    """One token per hidden unit of an MLP, or filter of a CNN, with the weights that make it."""

    title: ClassVar[str] = "neuron tokens"
    mixes: ClassVar[bool] = True
    is_lossless: ClassVar[bool] = True
    makes_tokens: ClassVar[bool] = True
    has_derivative: ClassVar[bool] = True
    orders_units: ClassVar[bool] = True

    standardise: Literal["none", "per_feature", "per_weight"] = "per_feature"
    """Numbers brought to mean 0 and deviation 1 over the training networks: none, each feature of a
    layer's units together, which leaves units exchangeable, or each weight by itself."""
    scale: Literal["kept", "balanced", "logarithm"] = "kept"
    """Scale of units that the function does not depend on (ReLU): `kept`, weights as they
    are; `balanced`, incoming and outgoing norm are made equal, and what is decoded has them so;
    `logarithm`, the same, and the logarithm of what that took is one more number of the token, so
    that decoding gives back the scale as well."""
    kind: Literal["neurons"] = "neurons"
    """The codec."""

    @property
    def tells_graph(self) -> bool:
        """Whether a token is a unit of an MLP, each of its numbers one weight or the bias."""
        return self.scale != "logarithm"

    @property
    def words(self) -> str:
        """Name of the kind, with what tells it apart, for an error."""
        return f"{self.kind} of scale {self.scale}"

    def shape_of_mlp(self, widths: Sequence[int], num_train: int) -> Shape | None:
        """Return a token for each hidden unit, and one of the output's biases; see the base."""
        if len(widths) < 3:
            return None
        outputs = widths[-1]
        sections = [
            (units, inputs + 1 + (self.scale == "logarithm"))
            for inputs, units in pairwise(widths[:-1])
        ]
        units, size = sections.pop()  # the last hidden layer's tokens have outgoing weights, too
        sections += [(units, size + outputs), (1, outputs)]
        return Shape(sum(count * size for count, size in sections), tuple(sections))


@dataclass(frozen=True)
class TokenSettings(Checked):
    """How networks are cut into tokens, and what of them."""

    key: ClassVar[str] = "codec"
    """Dotted key under which these settings stand, for an error."""

    size: Count | None = None
    """Numbers of a token; default: what suits the networks."""
    packing: Packing = "rows"
    """Begin each output channel with a new token, as published, or each layer only."""
    norms: bool = True
    """Cover the weights and biases of normalisations; else they are the training networks' mean."""
    buffers: bool = False
    """Cover BatchNorm's running statistics too; else they are the training networks' mean."""
    standardise: Literal["none", "per_layer", "min_max"] = "per_layer"
    """Scaling of each layer's numbers over the training networks: none, to mean 0 and
    deviation 1, or -1 to 1."""


@dataclass(frozen=True)
class TokensConfig(TokenSettings, CodecSettings):
    """The weights as tokens, rows of each output channel with its bias (arXiv 2406.09997)."""

    title: ClassVar[str] = "weight tokens"
    is_lossless: ClassVar[bool] = True
    makes_tokens: ClassVar[bool] = True
    has_derivative: ClassVar[bool] = True

    kind: Literal["tokens"] = "tokens"
    """The codec."""


@dataclass(frozen=True)
class BehaviourConfig(Checked):
    """A loss on what reconstructed networks answer (arXiv 2503.17138)."""

    weight: NonNegative = 0.0
    """Weight of this loss beside the others; 0: none."""
    measure: Literal["logits", "kl"] = "logits"
    """Mean squared difference of logits, or the divergence of the original's class probabilities
    from the reconstruction's, in nats."""
    images: Count = 64
    """Training images that the networks answer for, the same at each step."""
    networks: Count = 8
    """Windows of a micro-batch for which it is computed: each runs two whole networks."""


@dataclass(frozen=True)
class SaneTokensConfig(TokenSettings):
    """How networks are cut into the tokens that the autoencoder sees."""

    key: ClassVar[str] = "codec.tokens"

    standardise: Literal["none", "per_layer", "min_max", "run_time"] = "per_layer"
    """Shift and scale of tokens: none, each layer's mean and deviation over the
    training networks, or their range; or nothing, and the loss is in units of a batch's variance,
    for zoos of several architectures (arXiv 2504.10141)."""


@dataclass(frozen=True)
class SaneComputeConfig(LoopComputeConfig):
    """Where and how an autoencoder of windows learns."""

    workers: Whole | None = None
    """Processes that prepare batches; default: 4 with a GPU, else 0, the process that trains."""


@dataclass(frozen=True)
class SaneLoopConfig(LoopConfig):
    """How an autoencoder of windows learns; see `LoopConfig`."""

    compute: SaneComputeConfig = field(default_factory=SaneComputeConfig)
    """Device, arithmetic, saving, and processes that prepare batches."""


@dataclass(frozen=True)
class SaneConfig(CodecSettings):
    """A transformer autoencoder of windows of tokens (SANE, arXiv 2406.09997)."""

    title: ClassVar[str] = "SANE's tokens"
    makes_tokens: ClassVar[bool] = True
    tiles: ClassVar[bool] = True

    tokens: SaneTokensConfig = field(default_factory=SaneTokensConfig)
    """Tokens of which networks are made."""
    backbone: TokenAutoencoderConfig = field(default_factory=TokenAutoencoderConfig)
    """The autoencoder."""
    training: SaneLoopConfig = field(
        default_factory=lambda: SaneLoopConfig(batch_size=32, schedule="one_cycle", clip_norm=1.0)
    )
    """How it learns."""
    window: Count = 64
    """Tokens that it sees at once."""
    halo: Whole = 16
    """Neighbours on each side of what is kept, where a network is coded window by window."""
    views: tuple[Literal["canonical", "permuted"], ...] = ("canonical", "permuted")
    """The two views of a window: the network as it is, or in a random one of its equivalent
    orders. With `contrast` 0 there is the first alone."""
    contrast: Fraction = 0.05
    """Share of the contrastive loss (NT-Xent, arXiv 2002.05709); the rest is reconstruction."""
    temperature: Positive = 0.1
    """Temperature of the contrastive loss."""
    noise: NonNegative = 0.1
    """Deviation of the noise on what the autoencoder sees in training."""
    noise_kind: Literal["multiplicative", "additive"] = "multiplicative"
    """Noise in units of each number, or of one."""
    erase: Fraction = 0.0
    """Share of the views of which a rectangle of numbers is set to 0."""
    erase_area: tuple[Fraction, Fraction] = (0.02, 0.33)
    """Least and largest share of a window's slots that such a rectangle takes."""
    clean_target: bool = True
    """Reconstruct the window without noise and erasing; else, as published, with them."""
    padding_in_loss: bool = False
    """Average the squared error over all slots, as published; else over those with a weight."""
    behaviour: BehaviourConfig = field(default_factory=BehaviourConfig)
    """A loss on what reconstructed networks answer."""
    val_windows: Count = 256
    """Windows of held-out networks that a validation looks at, always the same."""
    encode_batch: Count = 64
    """Windows coded at once."""
    kind: Literal["sane"] = "sane"
    """The codec."""

    @property
    def buffers(self) -> bool:
        """Whether BatchNorm's running statistics are covered."""
        return self.tokens.buffers

    def __post_init__(self):
        if self.contrast and not self.backbone.projection:
            raise ValueError(
                f"contrast = {self.contrast} needs a head: set backbone.projection above 0, or "
                "contrast to 0"
            )
        if 2 * self.halo >= self.window:
            raise ValueError(
                f"halo = {self.halo} leaves nothing of a window of {self.window} tokens: it must "
                f"be at most {(self.window - 1) // 2}"
            )
        if len(self.views) != 2 or len(self.erase_area) != 2:
            raise ValueError(
                f"views = {list(self.views)}, erase_area = {list(self.erase_area)}: two are needed"
            )
        if self.erase_area[0] > self.erase_area[1]:
            raise ValueError(f"erase_area = {list(self.erase_area)}: the least comes first")


@dataclass(frozen=True)
class AutoencoderSettings(CodecSettings):
    """Base of the settings of codecs that code a whole network as one vector of latents."""

    tensors: str | None = None
    """Regular expression that is found in the names of the tensors that are covered, the others
    being the training networks' mean; default: all tensors."""
    buffers: bool = False
    """Cover BatchNorm's running statistics too, of the chosen tensors; else they are the training
    networks' mean."""
    standardise: Literal["none", "per_tensor", "per_weight"] = "per_tensor"
    """Numbers brought to mean 0 and deviation 1 over the training networks: none, each tensor's
    together, or each weight by itself."""
    log_variances: bool = True
    """Take the logarithm of running variances, of `buffers`, so that none comes back below 0."""
    input_noise: tuple[NonNegative, ...] = (0.0,)
    """Deviation of the noise on what the autoencoder sees in training: one number, or the least and
    the largest of a range from which each step draws one."""
    latent_noise: tuple[NonNegative, ...] = (0.0,)
    """Deviation of the noise on latents in training; likewise."""
    noise_kind: Literal["added", "mixed"] = "added"
    """Noise beside the number, or in the place of as large a share of it."""
    kl: NonNegative = 0.0
    """Weight of the divergence of a network's latents from a standard normal, in nats, beside the
    sum of its squared errors; 0: latents have no spread that is learnt."""
    kl_steps: Whole = 0
    """Steps over which that weight rises from 0."""

    backbone: ClassVar[VectorAutoencoderSettings]
    chunk: ClassVar[int | None] = None
    """Most numbers that the autoencoder sees at once; None: all of a network. A setting of some."""

    def chunks(self, numbers: int) -> int:
        """Return in how many chunks, of like size, so many numbers are coded."""
        return 1 if self.chunk is None else -(-numbers // self.chunk)

    def chunk_size(self, numbers: int) -> int:
        """Return how many numbers a chunk has; what is missing at the end is filled with zeros."""
        return -(-numbers // self.chunks(numbers))

    def shape_of(self, numbers: int) -> Shape:
        """Return the shape of codes of so many numbers."""
        chunks, latents = self.chunks(numbers), self.backbone.latents(self.chunk_size(numbers))
        return Shape(chunks * latents, ((chunks, latents),) if self.makes_tokens else None)

    def __post_init__(self):
        for name in ("input_noise", "latent_noise"):
            given = vars(self)[name]
            if len(given) not in (1, 2) or given[0] > given[-1]:
                raise ValueError(
                    f"{name} = {list(given)}: give one number, or two, the smaller first"
                )
            if self.noise_kind == "mixed" and given[-1] > 1:
                raise ValueError(
                    f"{name} = {list(given)}: of noise_kind mixed it is a share, at most 1"
                )
        if not self.buffers:
            refuse_idle(self, "log_variances", by=("buffers",), because="buffers = false: set that")
        if self.tensors is not None:
            try:
                re.compile(self.tensors)
            except re.error as error:
                raise ValueError(
                    f"tensors = {self.tensors!r} is no regular expression: {error}"
                ) from None

    def with_steps(self: Settings, steps: int) -> Settings:
        """Return them with so many steps; the divergence's weight rises over the same share."""
        shorter = super().with_steps(steps)
        return replace(shorter, kl_steps=round(self.kl_steps * steps / self.training.steps))

    def shape_of_mlp(self, widths: Sequence[int], num_train: int) -> Shape | None:
        """Return vectors of the latents; None where some tensors are chosen; see the base."""
        if self.tensors is not None:
            return None
        return self.shape_of(count_numbers(widths))


@dataclass(frozen=True)
class ConvAutoencoderConfig(AutoencoderSettings):
    """A convolutional autoencoder of networks as vectors (p-diff, arXiv 2402.13144)."""

    title: ClassVar[str] = "codes of p-diff's autoencoder"

    backbone: StridedAutoencoderConfig | FoldedAutoencoderConfig = field(
        default_factory=StridedAutoencoderConfig
    )
    """The autoencoder."""
    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=2000, batch_size=50, learning_rate=1e-3)
    )
    """How it learns."""
    input_noise: tuple[NonNegative, ...] = (0.001,)
    """Deviation of the noise on what the autoencoder sees in training: one number, or the least and
    the largest of a range from which each step draws one."""
    latent_noise: tuple[NonNegative, ...] = (0.1,)
    """Deviation of the noise on latents in training; likewise."""
    chunk: Count | None = None
    """Most numbers that the autoencoder sees at once, for networks of 10^5 and more: it codes one
    chunk after the other, told which, and its memory follows the chunk; default: all at once."""
    codes: Literal["vector", "tokens"] = "vector"
    """Codes of chunks: the latents of all as one vector, or a token for each chunk."""
    kind: Literal["conv_autoencoder"] = "conv_autoencoder"
    """The codec."""

    def __post_init__(self):
        super().__post_init__()
        if self.makes_tokens and self.chunk is None:
            raise ValueError(
                "codes = 'tokens' has a token for each chunk, and chunk is not set: set it, or "
                "codes = 'vector'"
            )

    @property
    def makes_tokens(self) -> bool:
        """Whether codes are sequences of tokens; else vectors."""
        return self.codes == "tokens"


@dataclass(frozen=True)
class VaeConfig(AutoencoderSettings):
    """A variational autoencoder of networks as vectors, of linear layers (VAE-Diffusion)."""

    title: ClassVar[str] = "codes of a VAE"
    has_prior: ClassVar[bool] = True

    backbone: PerceptronAutoencoderConfig = field(default_factory=PerceptronAutoencoderConfig)
    """The autoencoder."""
    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=2000, batch_size=32, learning_rate=1e-4)
    )
    """How it learns."""
    kl: Positive = 0.01
    """Weight of the divergence of a network's latents from a standard normal, in nats, beside the
    sum of its squared errors."""
    kind: Literal["vae"] = "vae"
    """The codec."""


CodecConfig = (
    FlatConfig
    | PcaConfig
    | NeuronsConfig
    | FunctionsConfig
    | TokensConfig
    | SaneConfig
    | ConvAutoencoderConfig
    | VaeConfig
)
"""Union of all codecs' settings."""
