"""Time, and what a generator is asked for, as vectors that modulate a backbone's blocks.

Shape suffixes: B vectors of a batch, C conditions, P numbers of all conditions, T features or
tokens, W width.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.linear import Linear

_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY = 0.25, 8.0
# Conditions are standardised: nearly all lie within this many deviations of each other.
_SPAN = 8.0
Layer = TypeVar("Layer", nn.Linear, nn.Conv1d)


def zeroed(layer: Layer) -> Layer:
    """Return the layer with weights and bias of zero: what ends in it begins as nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def modulated(x_BTW: torch.Tensor, shift: torch.Tensor, *, scale: torch.Tensor) -> torch.Tensor:
    """Return x_BTW, normalised over W, times 1 + scale, plus shift, both [B or 1, 1, W]."""
    return torch.addcmul(shift, functional.layer_norm(x_BTW, x_BTW.shape[2:]), 1 + scale)


class FourierTime(nn.Module):
    """Time in [0, 1] as sines and cosines of geometrically spaced frequencies.

    Their lowest has a quarter of a period in [0, 1], so that no two times look alike.
    """

    def __init__(self, num_features: int):
        super().__init__()
        octaves = torch.linspace(
            math.log(_LOWEST_FREQUENCY), math.log(_HIGHEST_FREQUENCY), num_features // 2
        )
        self.register_buffer("frequencies", 2 * math.pi * octaves.exp(), persistent=False)

    def forward(self, t_B: torch.Tensor) -> torch.Tensor:
        """Return time_BT."""
        angles = t_B.unsqueeze(1) * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def time_layers(width: int) -> nn.Sequential:
    """Return layers from times [B] to their vectors [B, T], of `width` features; see `embed`."""
    return nn.Sequential(
        FourierTime(width), Linear(width, width), nn.SiLU(), Linear(width, width), nn.SiLU()
    )


class _Number(nn.Module):
    """A standardised number, [B, 1], as a vector."""

    def __init__(self, num_features: int):
        super().__init__()
        self.layers = nn.Sequential(
            FourierTime(num_features),
            Linear(num_features, num_features),
            nn.SiLU(),
            Linear(num_features, num_features),
        )

    def forward(self, number_B1: torch.Tensor) -> torch.Tensor:
        return self.layers(number_B1.squeeze(1) / _SPAN)


class ConditionEmbedding(nn.Module):
    """Conditions as one vector, the sum of their own; NaN, for none, is a learned one of each.

    A number becomes sines and cosines; shares of categories are those of the vectors of a table.

    Args:
        num_features: T.
        told: numbers of each condition: 1 is a number on a scale, more are shares of categories.
    """

    def __init__(self, num_features: int, told: Sequence[int] = (1,)):
        super().__init__()
        self.told = tuple(told)
        self.known = nn.ModuleList(
            _Number(num_features) if size == 1 else Linear(size, num_features, bias=False)
            for size in self.told
        )
        self.none_CT = nn.Parameter(torch.zeros(len(self.told), num_features))

    def forward(self, condition_BP: torch.Tensor) -> torch.Tensor:
        """Return condition_BT."""
        vectors = [
            torch.where(part_BP[:, :1].isnan(), none_T, known(part_BP.nan_to_num()))
            for part_BP, known, none_T in zip(
                condition_BP.split(self.told, dim=1), self.known, self.none_CT.unbind(), strict=True
            )
        ]
        return sum(vectors[1:], start=vectors[0])


def embed(
    embed_time: nn.Sequential,
    embed_condition: ConditionEmbedding | None,
    *,
    t_B: torch.Tensor,
    condition_BP: torch.Tensor | None,
) -> torch.Tensor:
    """Return the vectors that modulate blocks, shape [B, T], or [1, T] where all share one.

    Args:
        embed_time: layers, the last of them the activation that the condition enters before.
        embed_condition: None in a backbone that knows no conditions.
        t_B: times, or, of shape [1], the one time of all.
        condition_BP: conditions, or, of shape [1, P], those of all; None: none.
    """
    if embed_condition is None:
        return embed_time(t_B)
    if condition_BP is None:
        condition_BP = t_B.new_full((1, sum(embed_condition.told)), math.nan)
    *layers, activation = embed_time
    time_BT = t_B
    for layer in layers:
        time_BT = layer(time_BT)
    return activation(time_BT + embed_condition(condition_BP))
