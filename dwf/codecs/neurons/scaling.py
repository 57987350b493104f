"""Scales of neurons: units balanced and brought back, and what standardises their numbers.

Shape suffixes: N networks, B networks of a block, D numbers of a network, E numbers of a network
and logarithms of its hidden units, U units of all hidden layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dwf.align.canonical import balance_with_scales, squared_norms
from dwf.align.groups import scale_units
from dwf.codecs.neurons.layers import NeuronTokens, unit_groups
from dwf.errors import ConfigError
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Source, measure_moments

# As for flat codes: what hardly varies over the training networks is scaled as if it varied by
# this share of all weights' deviation.
_LEAST_DEVIATION = 1e-3


@dataclass(frozen=True)
class Measured:
    """Measurements of the training networks of one architecture."""

    num_networks: int
    mean_E: np.ndarray
    variance_E: np.ndarray
    log_scale: float = 0.0
    """Root mean square logarithm of what units were scaled by, of the unit where it is largest."""
    num_dead: int = 0
    """Units without incoming or without outgoing weights, over all networks."""


def measure(layout: Layout, sources: Sequence[Source], *, scale: str) -> Measured:
    """Measure networks of one layout, balanced unless scales are `kept`. Ranks call it together.

    Raises:
        ConfigError: a unit is zero in all of them.
    """
    if scale == "kept":
        moments = measure_moments(sources)
        one = Measured(moments.num_networks, moments.mean_D, variance_E=moments.variance_D)
    else:
        moments = measure_moments(sources, prepare=lambda weights: _with_units(weights, layout))
        mean, variance, size = moments.mean_D, moments.variance_D, layout.size
        num_units = sum(group.size for group in unit_groups(layout))
        squared_U = (variance + np.square(mean))[size : size + num_units]
        num_dead = round(moments.num_networks * float(mean[size + num_units :].sum()))
        stop = size + num_units * (scale == "logarithm")
        largest = float(np.sqrt(squared_U.max()))
        one = Measured(
            moments.num_networks,
            mean[:stop],
            variance_E=variance[:stop],
            log_scale=largest,
            num_dead=num_dead,
        )
    _refuse_zero_units(layout, one, sources)
    return one


def balanced(weights_ND: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """Return balanced rows, and the logarithms of the factors that were divided out, float64_NU."""
    balanced_ND, log_scales = balance_with_scales(weights_ND, layout, groups=unit_groups(layout))
    return balanced_ND, -torch.cat(log_scales, 1)


def scale_back(rows_NE: torch.Tensor, layout: Layout) -> None:
    """Multiply units by the factors whose logarithms are behind the weights, in place.

    The inverse of `balanced`.
    """
    groups, tensors = unit_groups(layout), layout.unflatten(rows_NE[:, : layout.size])
    parts = rows_NE[:, layout.size :].double().split([group.size for group in groups], 1)
    for group, log_NU in zip(groups, parts, strict=True):
        scale_units(tensors, group, factor_NU=log_NU.exp())


def _with_units(weights_BD: np.ndarray, layout: Layout) -> np.ndarray:
    """Return balanced weights, logarithms of units, and which units are dead, side by side."""
    balanced_BD, log_BU = balanced(torch.from_numpy(weights_BD), layout)
    tensors = layout.unflatten(balanced_BD.double())
    dead = []
    for group in unit_groups(layout):
        incoming_BU, outgoing_BU = squared_norms(tensors, group)
        dead.append((incoming_BU == 0) | (outgoing_BU == 0))
    return torch.cat([balanced_BD, log_BU.float(), *dead], 1).numpy()


def _refuse_zero_units(layout: Layout, measured: Measured, sources: Sequence[Source]) -> None:
    mean_D, variance_D = (each[: layout.size] for each in (measured.mean_E, measured.variance_E))
    is_zero = layout.unflatten((mean_D == 0) & (variance_D == 0))
    for group in unit_groups(layout):
        zero_U = np.ones(group.size, bool)
        for member in group.members:
            of_units = np.moveaxis(is_zero[member.name], member.axis, 0)
            zero_U &= of_units.reshape(group.size, -1).all(1)
        if zero_U.any():
            names = ", ".join(str(zoo.path) for zoo, _ in sources)
            first = group.members[0].name
            raise ConfigError(
                f"unit {int(zero_U.argmax())} of {first} ({int(zero_U.sum())} of {group.size}) is "
                f"zero in all {measured.num_networks} training networks of {names}, incoming and "
                "outgoing weights: there is nothing to learn of it; train networks without it "
                "(network.widths, network.channels), or choose the codec flat"
            )


def standardisation(
    measured: Sequence[Measured], tokens: NeuronTokens, *, standardise: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (shift_E, scale_E) of each architecture, float64.

    Args:
        measured: of each architecture.
        tokens: the sequence that they share.
        standardise: see `NeuronsConfig`.
    """
    pairs = [(np.zeros_like(one.mean_E), np.ones_like(one.mean_E)) for one in measured]
    if standardise == "none":
        return pairs
    variances = [np.ones_like(one.mean_E) for one in measured]
    for layer in range(len(tokens.num_units)):
        pooled = _pool(measured, tokens, layer, standardise == "per_feature")
        for a, (mean, variance) in enumerate(pooled):
            place = tokens.places[a][layer]
            pairs[a][0][place], variances[a][place] = mean, variance
    covered = [np.sort(np.concatenate([p.ravel() for p in each])) for each in tokens.places]
    among = [variance[at] for variance, at in zip(variances, covered, strict=True)]
    least = _LEAST_DEVIATION * np.sqrt(np.concatenate(among).mean())
    for (_, scale_E), variance_D, at in zip(pairs, variances, covered, strict=True):
        scale_E[at] = np.maximum(np.sqrt(variance_D[at]), least) if least else 1.0
    return pairs


def _pool(
    measured: Sequence[Measured], tokens: NeuronTokens, layer: int, over_units: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return mean and variance of the numbers of a layer's tokens over all networks that have them.

    There is one pair for each architecture, in the shape of its tokens: [U, numbers], or [numbers]
    where the layer's units are taken together.
    """
    parts = []
    for one, places, columns in zip(measured, tokens.places, tokens.columns, strict=True):
        place, column = places[layer], columns[layer]
        mean, variance = one.mean_E[place], one.variance_E[place]
        if over_units:
            weight, at = one.num_networks * len(place), column
            mean, variance = mean.mean(0), variance.mean(0) + mean.var(0)
        else:
            weight, at = one.num_networks, np.ix_(np.arange(len(place)), column)
        parts.append((at, weight, mean, variance))
    widest = max(int(columns[layer].max()) for columns in tokens.columns) + 1
    shape = (widest,) if over_units else (tokens.num_units[layer], widest)
    total, means, variances = (np.zeros(shape) for _ in range(3))
    for at, weight, _, _ in parts:
        total[at] += weight
    for at, weight, mean, _ in parts:
        means[at] += weight / total[at] * mean
    for at, weight, mean, variance in parts:
        variances[at] += weight / total[at] * (variance + np.square(mean - means[at]))
    return [(means[at], variances[at]) for at, _, _, _ in parts]
