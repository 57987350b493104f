"""Which architecture of dwf's has tensors of these names and shapes.

A guess is made for each architecture and then built: it counts where every tensor of the file finds
its place. What weights do not show (activations, strides, pooling, heads) keeps its default, and is
named, so that the user looks at it.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterator

from dwf.errors import ConfigError
from dwf.importers.importer import Unusable
from dwf.importers.naming import Shapes, match_names
from dwf.networks.config import (
    CifarResNetConfig,
    CNNConfig,
    MLPConfig,
    NetworkConfig,
    ResNetConfig,
    ViTConfig,
)
from dwf.networks.functional import build_network
from dwf.plain import Json
from dwf.settings import to_dict
from dwf.zoo.layout import Layout

_HEAD_WIDTH = 64
_UNSEEN = {
    MLPConfig: "activation",
    CNNConfig: "activation, strides, paddings, pools and input",
    ViTConfig: "heads",
}
"""Architecture -> its settings that weights do not show."""


def recognise(
    shapes: Shapes, *, image: tuple[int, ...] | None = None, order_is_known: bool = True
) -> NetworkConfig | None:
    """Return the settings of the architecture that has these tensors; None where dwf has none.

    Args:
        shapes: name -> shape, of the floating-point tensors of a file.
        image: shape of one input, if the data are known: by it strides and pools are guessed.
        order_is_known: whether they come in the order of layers.
    """
    for guess in _GUESSES if all(map(all, shapes.values())) else ():  # an axis may be empty
        try:
            for config in guess(shapes, image):
                if fits(config, shapes, order_is_known=order_is_known):
                    return config
        except (ValueError, IndexError, ZeroDivisionError):
            continue  # a tensor of one axis where two were taken for granted, or of none
    return None


def fits(config: NetworkConfig, shapes: Shapes, *, order_is_known: bool = True) -> bool:
    """Tell whether each tensor of a file has its place in an architecture, and the reverse."""
    try:
        layout = Layout.of(build_network(config))
        match_names(shapes, layout, order_is_known=order_is_known)
    except (Unusable, ConfigError, ValueError):
        return False
    return True


def block_of(config: NetworkConfig) -> str:
    """Return the settings as one line of YAML, with what cannot be seen in weights."""
    plain = to_dict(config)
    told = {"kind": plain.pop("kind")}
    defaults = {f.name: f.default for f in type(config).__dataclass_fields__.values()}
    told |= {k: v for k, v in plain.items() if v != to_dict(defaults.get(k))}
    unseen = _UNSEEN.get(type(config))
    hint = f" (weights do not show {unseen}: look at them)" if unseen else ""
    return f"network: {_flow(told)}{hint}"


def _flow(value: Json) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mlp(shapes: Shapes, image: tuple[int, ...] | None) -> Iterator[MLPConfig]:
    weights = [shape for shape in shapes.values() if len(shape) == 2]
    if len(shapes) == 2 * len(weights) and weights:
        yield MLPConfig((weights[0][1], *(shape[0] for shape in weights)))


def _cnn(shapes: Shapes, image: tuple[int, ...] | None) -> Iterator[CNNConfig]:
    convs = [shape for shape in shapes.values() if len(shape) == 4]
    linears = [shape for shape in shapes.values() if len(shape) == 2]
    if not convs or not linears or any(shape[2] != shape[3] for shape in convs):
        return
    channels = tuple(shape[0] for shape in convs)
    has_norms = any(name.endswith("running_mean") for name in shapes)
    told = dict(
        channels=channels,
        kernels=tuple(shape[2] for shape in convs),
        hidden=tuple(shape[0] for shape in linears[:-1]),
        classes=linears[-1][0],
        norm="batch" if has_norms else "none",
        groups=_groups(convs),
        bias=len(shapes) == 2 * (len(convs) + len(linears)) + 4 * has_norms * len(convs),
    )
    sizes = [image[1:]] if image and len(image) == 3 else [(28, 28), (32, 32)]
    fan_in = convs[0][1]
    for size in sizes:
        yield from _cnns_of_size((fan_in, *size), linears[0][1], told)
    if linears[0][1] == channels[-1]:
        yield from _cnns_of_size((fan_in, *sizes[0]), None, told | {"head": "average"})


def _cnns_of_size(
    shape: tuple[int, ...], inputs: int | None, told: dict[str, object]
) -> Iterator[CNNConfig]:
    """Strides, paddings and pools by which the linear layer gets as many inputs as it has."""
    ways = itertools.product((1, 2), (0, 1, 2), (0, 2, 3))
    for stride, padding, pool in ways:
        more = {"strides": stride, "paddings": padding, "pools": pool}
        try:
            config = CNNConfig(input=shape, **more, **told)
        except ValueError:
            continue
        if inputs is None or math.prod(config.map_size()) * config.channels[-1] == inputs:
            yield config


def _groups(convs: list[tuple[int, ...]]) -> int | tuple[int, ...]:
    fans = [convs[0][1], *(shape[0] for shape in convs[:-1])]
    groups = tuple(max(1, fan // max(shape[1], 1)) for fan, shape in zip(fans, convs, strict=True))
    return 1 if set(groups) == {1} else groups


def _resnet_cifar(shapes: Shapes, image: tuple[int, ...] | None) -> Iterator[CifarResNetConfig]:
    stem, head = _ends(shapes)
    if stem and head and len(stem) == 4 and len(head) == 2:
        blocks = sum(len(shape) == 4 for shape in shapes.values()) - 3  # stem, two shortcuts
        depth = blocks + 2
        if depth >= 8 and (depth - 2) % 6 == 0:
            yield CifarResNetConfig(depth, stem[0], classes=head[0], channels=stem[1])


def _resnet(shapes: Shapes, image: tuple[int, ...] | None) -> Iterator[ResNetConfig]:
    stem, head = _ends(shapes)
    if stem and head and len(stem) == 4 and len(head) == 2:
        kind = "cifar" if stem[2] == 3 else "imagenet"
        for depth in (18, 34, 50):
            yield ResNetConfig(depth, stem[0], classes=head[0], channels=stem[1], stem=kind)


def _ends(shapes: Shapes) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Shapes of the first and the last weight of more than one axis."""
    weights = [shape for shape in shapes.values() if len(shape) > 1]
    return (weights[0], weights[-1]) if weights else (None, None)


def _vit(shapes: Shapes, image: tuple[int, ...] | None) -> Iterator[ViTConfig]:
    patches, places = shapes.get("conv_proj.weight"), shapes.get("encoder.pos_embedding")
    layers = {m[1] for name in shapes if (m := re.search(r"layers\.encoder_layer_(\d+)\.", name))}
    head = shapes.get("heads.head.weight")
    hidden = shapes.get("encoder.layers.encoder_layer_0.mlp.0.weight")
    if not (patches and places and head and hidden and layers):
        return
    width, side = patches[0], math.isqrt(places[1] - 1)
    heads = width // _HEAD_WIDTH if width % _HEAD_WIDTH == 0 else 1
    yield ViTConfig(
        image=side * patches[2],
        patch=patches[2],
        width=width,
        depth=len(layers),
        heads=max(heads, 1),
        mlp_ratio=hidden[0] / width,
        classes=head[0],
        channels=patches[1],
    )


_GUESSES: tuple[Callable[[Shapes, tuple[int, ...] | None], Iterator[NetworkConfig]], ...] = (
    _mlp,
    _vit,
    _resnet_cifar,
    _resnet,
    _cnn,
)
