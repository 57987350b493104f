"""Tensors of a network that a row holds."""

import torch
from torch import nn


def floats_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the floating-point tensors of a network by name, each once: they share its memory.

    A parameter or buffer that is registered under several names stands under the first of them, as
    `torch.func.functional_call` takes it for all.
    """
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    held = network.state_dict(keep_vars=True)
    for name, tensor in held.items():
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            continue
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found
