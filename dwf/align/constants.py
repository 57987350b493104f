"""Constants of a network: its buffers that are no running statistics, and tensors it keeps.

A row holds a network's buffers, too. The statistics of a normalisation follow its units. All
others, as tables of positions, are the same in every network of a zoo, whatever order its units
have: they are constants, and pin what they tell apart. What they happen to be when built (0, 1,
infinity) says nothing about scales, so traces and checks draw them anew.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn

from dwf.zoo.layout import Layout


def constants_of(network: nn.Module, layout: Layout) -> dict[str, torch.Tensor]:
    """Return a network's constants among the entries of its layout, by name."""
    buffers = dict(network.named_buffers())
    return {entry.name: buffers[entry.name] for entry in layout.constants}


def draw_like(values: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Return numbers in place of a constant's: equal where these are equal, otherwise any.

    Below 0 where these are; else above, as what stands under a root or in a quotient has to be.

    Args:
        values: any shape, floating type.
        random: source of the numbers.
    """
    distinct, inverse = torch.unique(values, return_inverse=True)
    drawn = 0.1 + 0.8 * torch.rand(len(distinct), generator=random, dtype=torch.float64)
    drawn = torch.where(distinct < 0, -drawn, drawn)
    return drawn[inverse].to(values.dtype)


def with_constants_drawn(
    network: nn.Module, layout: Layout, *, random: torch.Generator
) -> nn.Module:
    """Return a copy of a network whose constants outside its rows are drawn anew.

    These are the floating-point buffers and tensors in attributes that a layout does not name.

    Args:
        network: any module; it is left as it was.
        layout: its layout.
        random: source of the numbers.
    """
    network = copy.deepcopy(network)

    def drawn(value: torch.Tensor) -> torch.Tensor:
        return draw_like(value.detach(), random)

    for prefix, module in network.named_modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            full = f"{prefix}.{name}" if prefix else name
            if full not in layout.by_name and buffer.is_floating_point():
                module._buffers[name] = drawn(buffer)
        own = {n: v for n, v in vars(module).items() if not n.startswith("_")}
        for name, value in own.items():
            vars(module)[name] = _replaced(value, drawn)
    return network


def _replaced(value: object, drawn: Callable[[torch.Tensor], torch.Tensor]) -> object:
    """Return a value with the floating-point tensors in it drawn anew."""
    if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
        return drawn(value) if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(_replaced(one, drawn) for one in value)
    if type(value) is dict:
        return {key: _replaced(one, drawn) for key, one in value.items()}
    return value
