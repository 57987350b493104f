"""Settings of a zoo member, and the table of architectures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from dwf.errors import ConfigError
from dwf.networks.architecture import Architecture, ImageArchitecture
from dwf.settings import Count, Fraction, Positive, Whole
from dwf.trust import Code

NETWORKS = {
    "mlp": "dwf.networks.mlp:MLP",
    "cnn": "dwf.networks.cnn:CNN",
    "resnet": "dwf.networks.resnet:ResNet",
    "resnet_cifar": "dwf.networks.resnet_cifar:CifarResNet",
    "vit": "dwf.networks.vit:ViT",
    "vgg": "dwf.networks.vgg:VGG",
    "mobilenet_v2": "dwf.networks.mobilenet:MobileNetV2",
    "densenet": "dwf.networks.densenet:DenseNet",
    "convnext": "dwf.networks.convnext:ConvNeXt",
    "python": "dwf.networks.imported:import_network",
    "none": "dwf.networks.unknown:refuse_to_build",
}

Activation = Literal["relu", "gelu", "tanh", "sigmoid", "silu", "leaky_relu"]
_HOMOGENEOUS = ("relu", "leaky_relu")
Stem = Literal["cifar", "imagenet"]
_CLASSES = ("classes", "num_classes")  # as a factory of the user's own may call their number


@dataclass(frozen=True)
class MLPConfig(Architecture):
    """A multi-layer perceptron."""

    widths: tuple[Count, ...]
    """Inputs, hidden units of each layer, classes: `[784, 32, 32, 10]`."""
    activation: Activation = "relu"
    """Non-linearity after each hidden layer."""
    kind: Literal["mlp"] = "mlp"
    """The architecture."""

    is_stacked = is_chain = is_layered = True

    def __post_init__(self):
        if len(self.widths) < 2:
            raise ValueError(
                f"widths = {list(self.widths)}: at least inputs and classes are needed"
            )

    @property
    def scales_units(self) -> bool:
        """Whether units can be scaled: with an activation that scales with what it takes in."""
        return self.activation in _HOMOGENEOUS

    @property
    def input_shape(self) -> tuple[int]:
        """Numbers of one input, of whatever shape."""
        return self.widths[:1]

    @property
    def num_classes(self) -> int:
        """Logits."""
        return self.widths[-1]

    def with_classes(self, classes: int) -> "MLPConfig":
        """Return the architecture with another number of logits."""
        return replace(self, widths=(*self.widths[:-1], classes))

    def with_hidden(self, units: Sequence[int]) -> "MLPConfig":
        """Return the architecture with other numbers of hidden units; see the base."""
        inputs, *hidden, outputs = self.widths
        if len(units) != len(hidden):
            raise ConfigError(
                f"{list(units)} hidden units: {self.named} has {len(hidden)} hidden layers: give "
                "as many numbers"
            )
        return replace(self, widths=(inputs, *units, outputs))

    def multiplications(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers a network multiplies to answer one input."""
        return sum(inputs * outputs for inputs, outputs in pairwise(self.widths))

    def misfit(self, data: str, shape: tuple[int, ...], *, num_classes: int) -> str | None:
        """Return why a dataset does not fit, and the cure."""
        num_inputs = math.prod(shape)
        if self.widths[0] == num_inputs and self.widths[-1] >= num_classes:
            return None
        return (
            f"network.widths = {list(self.widths)}: {data} has {num_inputs} inputs and "
            f"{num_classes} classes: give {num_inputs} first and {num_classes} last"
            + (", or another data.size" if len(shape) == 3 else "")
        )


@dataclass(frozen=True)
class CNNConfig(ImageArchitecture):
    """Convolutions, then linear layers: conv, norm, activation, pool; activation, dropout."""

    channels: tuple[Count, ...] = (16, 16, 16)
    """Filters of each convolution."""
    input: tuple[Count, ...] = (1, 28, 28)
    """Channels, height and width of an image."""
    kernels: Count | tuple[Count, ...] = 3
    """Kernel side, of all convolutions or of each."""
    strides: Count | tuple[Count, ...] = 1
    """Stride, of all convolutions or of each."""
    paddings: Whole | tuple[Whole, ...] = 0
    """Zeros around the image, of all convolutions or of each."""
    groups: Count | tuple[Count, ...] = 1
    """Groups of a grouped convolution, of all convolutions or of each."""
    pools: Whole | tuple[Whole, ...] = 0
    """Side of the max-pooling behind all convolutions or each; 0 for none."""
    pool_first: bool = False
    """Pool before the activation, which differs where it is not monotone (`gelu`, `silu`)."""
    norm: Literal["none", "batch"] = "none"
    """Normalisation behind each convolution."""
    activation: Activation = "relu"
    """Non-linearity after each convolution and each hidden linear layer."""
    head: Literal["flatten", "average"] = "flatten"
    """Input of the linear layers: every pixel, or the average over them."""
    hidden: tuple[Count, ...] = ()
    """Units of each hidden linear layer."""
    classes: Count = 10
    """Logits."""
    bias: bool = True
    """Whether convolutions have a bias; linear layers always do."""
    dropout: Fraction = 0.0
    """Share of activations of the hidden linear layers dropped in training."""
    dropout_behind: Literal["linear", "all"] | None = None
    """Layers behind which activations are dropped: the hidden `linear` layers (the default), or
    `all`, the convolutions too."""
    kind: Literal["cnn"] = "cnn"
    """The architecture."""

    is_chain = is_layered = True

    @property
    def scales_units(self) -> bool:
        """Whether filters can be scaled: with an activation that scales with what it takes in."""
        return self.activation in _HOMOGENEOUS

    def __post_init__(self):
        if len(self.input) != 3:
            raise ValueError(f"input = {list(self.input)}: expected [channels, height, width]")
        if not self.channels:
            raise ValueError("channels = []: at least one convolution is needed")
        for name in ("kernels", "strides", "paddings", "groups", "pools"):
            self.per_layer(name)
        fan_in = self.input[0]
        for i, groups in enumerate(self.per_layer("groups")):
            if fan_in % groups or self.channels[i] % groups:
                raise ValueError(
                    f"groups = {groups} of convolution {i} does not divide its {fan_in} inputs "
                    f"and {self.channels[i]} filters"
                )
            fan_in = self.channels[i]
        self.map_size()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.input

    def per_layer(self, name: str) -> tuple[int, ...]:
        """Return what a setting says of each convolution; refuse a list of another length."""
        values, count = vars(self)[name], len(self.channels)
        if isinstance(values, int):
            return (values,) * count
        if len(values) != count:
            raise ValueError(
                f"{name} = {list(values)}: expected one number, or {count} for {count} convolutions"
            )
        return tuple(values)

    def map_size(self) -> tuple[int, int]:
        """Return height and width behind the last convolution.

        Raises:
            ValueError: nothing of the image is left behind some convolution.
        """
        height, width = self.input[1:]
        layers = map(self.per_layer, ("kernels", "strides", "paddings", "pools"))
        for i, (kernel, stride, padding, pool) in enumerate(zip(*layers, strict=True)):
            sides = [(side + 2 * padding - kernel) // stride + 1 for side in (height, width)]
            height, width = (side // pool if pool else side for side in sides)
            if min(sides) < 1 or min(height, width) < 1:
                raise ValueError(
                    f"convolution {i} (kernel {kernel}, stride {stride}, padding {padding}, pool "
                    f"{pool}) leaves {height} x {width} pixels of input = {list(self.input)}"
                )
        return height, width


@dataclass(frozen=True)
class ResNetConfig(ImageArchitecture):
    """ResNet-18, -34 or -50 (He et al., arXiv 1512.03385), torchvision's."""

    depth: Literal[18, 34, 50] = 18
    """Layers with weights on the longest way."""
    width: Count = 64
    """Channels of the first stage; the others have 2, 4 and 8 times as many."""
    classes: Count = 10
    """Logits."""
    channels: Count = 3
    """Channels of an image."""
    stem: Stem = "cifar"
    """`cifar`: convolution 3x3, no pooling; `imagenet`: 7x7 of stride 2, max-pooling."""
    kind: Literal["resnet"] = "resnet"
    """The architecture."""

    is_layered = scales_units = True


@dataclass(frozen=True)
class CifarResNetConfig(ImageArchitecture):
    """ResNet of 6n+2 layers in three stages for small images (arXiv 1512.03385, section 4.2)."""

    depth: Count = 20
    """Layers with weights on the longest way: 8, 14, 20, 32, 44, 56, 110."""
    width: Count = 16
    """Channels of the first stage; the others have 2 and 4 times as many."""
    classes: Count = 10
    """Logits."""
    channels: Count = 3
    """Channels of an image."""
    kind: Literal["resnet_cifar"] = "resnet_cifar"
    """The architecture."""

    is_layered = scales_units = True

    def __post_init__(self):
        if self.depth < 8 or (self.depth - 2) % 6:
            raise ValueError(f"depth = {self.depth}: expected 6n + 2, such as 8, 14, 20 or 32")


@dataclass(frozen=True)
class ViTConfig(ImageArchitecture):
    """Vision transformer (Dosovitskiy et al., arXiv 2010.11929), torchvision's."""

    image: Count = 32
    """Height and width of an image."""
    patch: Count = 4
    """Side of a patch."""
    width: Count = 192
    """Channels of the residual stream."""
    depth: Count = 6
    """Blocks."""
    heads: Count = 3
    """Attention heads of a block."""
    mlp_ratio: Positive = 4.0
    """Hidden units of a block's MLP over `width`."""
    classes: Count = 10
    """Logits."""
    channels: Count = 3
    """Channels of an image."""
    dropout: Fraction = 0.0
    """Share of activations dropped in training."""
    kind: Literal["vit"] = "vit"
    """The architecture."""

    def __post_init__(self):
        if self.image % self.patch:
            raise ValueError(f"patch = {self.patch} does not divide image = {self.image}")
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
        if round(self.mlp_ratio * self.width) < 1:
            raise ValueError(f"mlp_ratio = {self.mlp_ratio:g} leaves no hidden unit")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return (self.channels, self.image, self.image)


@dataclass(frozen=True)
class VGGConfig(ImageArchitecture):
    """VGG-11 or -16 (Simonyan & Zisserman, arXiv 1409.1556), torchvision's features.

    The defaults are the usual head for images of 32 x 32; `pooled: 7, hidden: [4096, 4096]` is
    the published one.
    """

    depth: Literal[11, 13, 16, 19] = 11
    """Layers with weights in the published network."""
    width: Count = 64
    """Channels of the first stage; the others have 2, 4, 8 and 8 times as many."""
    norm: Literal["none", "batch"] = "batch"
    """Normalisation behind each convolution."""
    pooled: Count = 1
    """Side of the map that the linear layers see."""
    hidden: tuple[Count, ...] = ()
    """Units of each hidden linear layer."""
    classes: Count = 10
    """Logits."""
    channels: Count = 3
    """Channels of an image."""
    dropout: Fraction = 0.0
    """Share of activations of the hidden linear layers dropped in training."""
    kind: Literal["vgg"] = "vgg"
    """The architecture."""


@dataclass(frozen=True)
class MobileNetV2Config(ImageArchitecture):
    """MobileNet-V2 (Sandler et al., arXiv 1801.04381), torchvision's."""

    width: Positive = 1.0
    """All channels times this, rounded to `divisor`; the last 1,280 shrink only below 1."""
    divisor: Count = 8
    """Channels are rounded to multiples of this."""
    classes: Count = 10
    """Logits."""
    channels: Count = 3
    """Channels of an image."""
    stem: Stem = "cifar"
    """`cifar`: the first two reductions have stride 1; `imagenet`: as published."""
    dropout: Fraction = 0.0
    """Share of features dropped before the classifier in training; published: 0.2."""
    kind: Literal["mobilenet_v2"] = "mobilenet_v2"
    """The architecture."""


@dataclass(frozen=True)
class DenseNetConfig(ImageArchitecture):
    """DenseNet (Huang et al., arXiv 1608.06993), torchvision's; the default is DenseNet-121."""

    blocks: tuple[Count, ...] = (6, 12, 24, 16)
    """Layers of each dense block."""
    growth: Count = 32
    """Channels that each layer adds; the stem has twice as many."""
    classes: Count = 10
    """Logits."""
    channels: Count = 3
    """Channels of an image."""
    stem: Stem = "cifar"
    """`cifar`: convolution 3x3, no pooling; `imagenet`: 7x7 of stride 2, max-pooling."""
    kind: Literal["densenet"] = "densenet"
    """The architecture."""

    def __post_init__(self):
        if not self.blocks:
            raise ValueError("blocks = []: at least one dense block is needed")


@dataclass(frozen=True)
class ConvNeXtConfig(ImageArchitecture):
    """ConvNeXt (Liu et al., arXiv 2201.03545), torchvision's blocks in any size."""

    widths: tuple[Count, ...] = (16, 32, 64)
    """Channels of each stage."""
    depths: tuple[Count, ...] = (1, 1, 1)
    """Blocks of each stage."""
    patch: Count = 2
    """Side and stride of the first convolution; published: 4."""
    classes: Count = 10
    """Logits."""
    channels: Count = 3
    """Channels of an image."""
    layer_scale: Positive = 1e-6
    """Initial factor of each block's branch."""
    kind: Literal["convnext"] = "convnext"
    """The architecture."""

    def __post_init__(self):
        if not self.widths or len(self.widths) != len(self.depths):
            raise ValueError(
                f"widths = {list(self.widths)}, depths = {list(self.depths)}: expected one of each "
                "for each stage"
            )
        if sum(self.depths) < 2:
            raise ValueError(f"depths = {list(self.depths)}: expected at least two blocks")


@dataclass(frozen=True)
class PythonConfig(Architecture):
    """A network of the user's own: what a function or class of theirs returns.

    `forward` takes images [B, *shape] and returns logits [B, K]. The factory draws initial weights
    from torch's global generator, which is seeded for each network. Worker processes import the
    target too, so its package is installed or lies in the folder where the command is given.
    """

    target: Code
    """`package.module:factory`; the factory returns an `nn.Module`."""
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    """Keyword arguments of the factory."""
    kind: Literal["python"] = "python"
    """The architecture."""

    is_foreign = True

    def __post_init__(self):
        module, _, name = self.target.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise ValueError(f"target = {self.target!r}: expected package.module:factory")

    @property
    def named(self) -> str:
        """The setting that says which network it is, for errors."""
        return f"network.target = {self.target!r}"

    @property
    def num_classes(self) -> int | None:
        """Logits, where the factory takes their number."""
        return next((self.arguments[n] for n in _CLASSES if n in self.arguments), None)

    def with_classes(self, classes: int) -> "PythonConfig":
        """Return the architecture with another number of logits, if the factory takes it."""
        name = next((name for name in _CLASSES if name in self.arguments), None)
        if name is None:
            raise ConfigError(
                f"classes = {classes}: network.arguments of {self.target} has neither "
                f"{' nor '.join(_CLASSES)}, so the number of classes cannot be changed: give the "
                "factory one of these arguments and train the zoo with it"
            )
        return replace(self, arguments=self.arguments | {name: classes})


@dataclass(frozen=True)
class UnknownConfig(Architecture):
    """No architecture that is known: tensors that were imported, which nobody can run."""

    kind: Literal["none"] = "none"
    """The architecture."""

    is_known = False

    @property
    def num_classes(self) -> None:
        """Logits: nobody knows."""
        return None

    def with_classes(self, classes: int) -> "UnknownConfig":
        """Refuse: nobody knows which tensors make the logits."""
        raise ConfigError(
            f"classes = {classes}: the networks were imported with `network: {{kind: none}}`, so "
            "which tensors are the head is not known: import them with their network"
        )

    def misfit(self, data: str, shape: tuple[int, ...], *, num_classes: int) -> str:
        """Return why it cannot be trained."""
        return "network.kind = 'none' is for imported tensors and cannot be trained: give a network"


NetworkConfig = (
    MLPConfig
    | CNNConfig
    | ResNetConfig
    | CifarResNetConfig
    | ViTConfig
    | VGGConfig
    | MobileNetV2Config
    | DenseNetConfig
    | ConvNeXtConfig
    | PythonConfig
    | UnknownConfig
)
"""Union of all architectures' settings."""
