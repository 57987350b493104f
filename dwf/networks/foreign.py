"""Questions that dwf asks of modules that it did not write, answered from the module itself."""

import itertools

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from dwf.errors import ConfigError
from dwf.networks.held import floats_of


def protect_inputs(network: nn.Module) -> None:
    """Have a network work on copies: one that writes into its inputs changes nobody else's.

    One tensor of images is handed to many networks, and to one network for many rows. Compiled
    TorchScript takes no hooks: `dwf.networks.sound` refuses such a network if it writes.
    """
    if not isinstance(network, torch.jit.ScriptModule):
        network.register_forward_pre_hook(_copied)


def _copied(_network: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(one.clone() if isinstance(one, torch.Tensor) else one for one in inputs)


def refuse_lazy(network: nn.Module, call: str) -> None:
    """Refuse a network whose tensors have no shape before it has seen an image.

    Args:
        network: as it was built.
        call: what built it, in words.

    Raises:
        ConfigError: names the first such layer.
    """
    for name, module in network.named_modules():
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            raise ConfigError(
                f"network.target: {call}: the layer {name!r} is a {type(module).__name__}, whose "
                "shape is not known before it has seen an image, so that a row has no layout; make "
                f"it a {type(module).__name__.removeprefix('Lazy')} with its sizes"
            )


def refuse_unlike_a_row(network: nn.Module, named: str) -> None:
    """Refuse a network whose tensors are not stretches of a row of float32 numbers.

    Args:
        network: as it was built.
        named: the setting that says which network it is.

    Raises:
        ConfigError: a tensor has another type of floating-point numbers, or shares memory with
            another; names them.
    """
    floats = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point() or tensor.is_complex()
    }
    for name, tensor in floats.items():
        if tensor.dtype != torch.float32:
            raise ConfigError(
                f"{named}: {name} is {str(tensor.dtype).removeprefix('torch.')}, expected "
                "float32, as the numbers of a row are; make it so"
            )
    for one, other in _sharing(floats_of(network)):
        raise ConfigError(
            f"{named}: {one} and {other} overlap in memory without being one tensor, and a row "
            "holds each by itself; give each its own, or register one of them under both names"
        )


def _sharing(tensors: dict[str, torch.Tensor]) -> list[tuple[str, str]]:
    """Return names of tensors that lie in the same bytes."""
    spans = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + _reach(tensor), i, name)
        for i, (name, tensor) in enumerate(tensors.items())
        if tensor.numel()
    )
    pairs = itertools.pairwise(spans)
    return [(a[3], b[3]) if a[2] < b[2] else (b[3], a[3]) for a, b in pairs if b[0] < a[1]]


def _reach(tensor: torch.Tensor) -> int:
    """Bytes from a tensor's first number to behind its last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * (1 + sum((size - 1) * stride for size, stride in steps))
