"""Which axes of a network's tensors can be permuted together without changing its function.

ReLU units can be scaled as well: see `canonical.py`.

Shape suffixes: N networks, D numbers of one network, U units of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from dwf.align.config import Scale
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.mlp import MLP
from dwf.zoo.layout import Layout


@dataclass(frozen=True)
class Group:
    """Axes that permute together: one order of `size` units, applied to every member."""

    size: int
    """U: how many units are ordered."""
    members: tuple[tuple[str, int], ...]
    """(tensor's name, axis of its shape) of every axis that runs over these units: axis 0 of what
    comes into them, axis 1 of what goes out."""
    rescales: bool = False
    """Whether an alignment also fixes each unit's scale: incoming times s > 0, outgoing over s."""


def symmetry_of(network: nn.Module, layout: Layout, scale: Scale = "none") -> tuple[Group, ...]:
    """Return the groups of a network's architecture.

    Hidden layer l of an MLP is one group: the rows of `layers.l.weight`, `layers.l.bias`, and the
    columns of `layers.(l+1).weight`.

    Args:
        network: a network of the architecture; its weights take no part.
        layout: the layout of the zoo's rows.
        scale: `balanced` if units are to be rescaled too, which takes ReLU.

    Raises:
        ConfigError: the architecture's symmetry is not known, or its units cannot be rescaled.
        ShapeMismatch: the layout is of another architecture.
    """
    if not isinstance(network, MLP):
        raise ConfigError(
            f"networks of type {type(network).__name__} cannot be aligned, only MLP can: learn "
            "from the zoo as it is"
        )
    if Layout.of(network).digest != layout.digest:
        raise ShapeMismatch(
            f"the layout {layout.digest} is not of this network, which has "
            f"{Layout.of(network).digest}: take both from one zoo"
        )
    if scale == "balanced" and network.activation is not functional.relu:
        raise ConfigError(
            f"scale = 'balanced': units with {network.activation.__name__} compute something else "
            "once they are scaled, only those with relu do not; set scale to none"
        )
    return tuple(
        Group(
            layer.out_features,
            ((f"layers.{i}.weight", 0), (f"layers.{i}.bias", 0), (f"layers.{i + 1}.weight", 1)),
            rescales=scale == "balanced",
        )
        for i, layer in enumerate(network.layers[:-1])
    )


def identity_orders(groups: Sequence[Group], num_networks: int) -> list[torch.Tensor]:
    """Return the orders that change nothing: for each group int64 of shape [N, U]."""
    return [torch.arange(group.size).repeat(num_networks, 1) for group in groups]


def permute(
    weights_ND: torch.Tensor,
    layout: Layout,
    groups: Sequence[Group],
    orders: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Reorder units; exact: the numbers only move.

    Args:
        weights_ND: networks of this layout, any floating type.
        layout: their layout.
        groups: the groups of their architecture.
        orders: for each group int64 of shape [N, U]: unit `order[n, u]` of network n becomes
            its unit u.

    Returns:
        New rows, same shape and type.
    """
    permuted_ND = weights_ND.clone()
    tensors = {name: tensor.numpy() for name, tensor in layout.unflatten(permuted_ND).items()}
    for group, order_NU in zip(groups, orders, strict=True):
        for name, axis in group.members:
            # One network at a time: its tensor stays in cache, and whole rows are copied.
            for tensor, order_U in zip(tensors[name], order_NU.numpy(), strict=True):
                tensor[:] = tensor.take(order_U, axis)
    return permuted_ND
