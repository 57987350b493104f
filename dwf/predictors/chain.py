"""Networks that are chains of layers, as units with weights between them.

Layer l of a network with roles (place l, ...) has units [N, U, F] and edges from the layer before
[N, U, S, E]. The first layer has a row for each unit, [N, U, E], in place of edges: inputs have
places of their own, so nothing is lost, and no node for each input is needed.

Shape suffixes: N networks, U units of a layer, S units of the layer before, E numbers of an edge
(1, a filter's kernel, or the places behind a flatten), F numbers of a unit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from dwf.align.groups import Group
from dwf.align.symmetry import zoo_symmetry
from dwf.codecs.neurons import NeuronLayer, read_layers
from dwf.errors import ConfigError, ShapeMismatch
from dwf.zoo.layout import Entry, Layout
from dwf.zoo.store import Zoo

KINDS = ("other", "scaled", "turned")
"""Kinds of units, by which the activation behind them is told apart: of `scaled` ones, as of ReLU,
the scale is free, of `turned` ones, as of tanh, the sign."""
# Squared norms below this are those of dead units.
_LEAST_SQUARE = 1e-6


@dataclass(frozen=True)
class Role:
    """Kind of a layer: layers of one kind are read by the same maps, however many units they have.

    What makes the difference are place and depth in the chain, and how many numbers an edge and a
    unit have.
    """

    place: int
    """Number of the layer, from 0."""
    depth: int
    """Layers of the network."""
    edge: int
    """E; of the first layer numbers of a unit's row."""
    own: int
    """F, numbers of a unit: bias, norm, statistics, and the norm of its row."""
    classes: int = 0
    """Units of the last layer, which have places; 0 of others."""

    @property
    def is_first(self) -> bool:
        """Whether the layer takes the inputs."""
        return self.place == 0

    def describe(self) -> str:
        """Return it in words."""
        what = f"{self.edge} numbers from the inputs" if self.is_first else f"{self.edge} an edge"
        classes = f", {self.classes} classes" if self.classes else ""
        return f"layer {self.place + 1} of {self.depth} ({what}, {self.own} a unit{classes})"


@dataclass(frozen=True)
class ChainLayer:
    """Where the numbers of a layer lie."""

    role: Role
    weight: Entry
    own: tuple[Entry, ...]
    before: int
    """S."""
    kind: int
    """Number of the kind of its units among `KINDS`."""

    def edges(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return [N, U, S, E], or, of the first layer, [N, U, E], scaled by the root of fan-in.

        Weights are drawn, and mostly stay, so that their size falls with the root of how many there
        are of a unit: so wide and narrow layers are alike.
        """
        fan_in = math.prod(self.weight.shape[1:])
        rows = tensors[self.weight.name].flatten(2)
        rows = rows * math.sqrt(fan_in)
        return rows if self.role.is_first else rows.unflatten(2, (self.before, self.role.edge))

    def units(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return [N, U, F]: what is own, and the logarithm of the norm of the incoming weights."""
        square_NU = tensors[self.weight.name].flatten(2).square().sum(2)
        log_NU = (square_NU + _LEAST_SQUARE).log() / 2
        return torch.stack([*(tensors[entry.name] for entry in self.own), log_NU], 2)


def read_chain(zoo: Zoo) -> tuple[tuple[ChainLayer, ...], tuple[Group, ...]]:
    """Return the layers of a zoo's networks, and the groups of their units.

    Raises:
        ConfigError: they are no chain of layers with at least one hidden layer, or cannot be
            traced.
    """
    layout = zoo.layout
    try:
        layers = read_layers(layout)
    except ConfigError as error:
        raise _refusal(zoo) from error
    groups = zoo_symmetry(zoo)
    chain = []
    for place, layer in enumerate(layers):
        is_last = place == len(layers) - 1
        group = _group_of(layer, groups)
        if group is None and layer.units > 1 and not is_last:
            raise _refusal(zoo)
        kind = (
            "scaled" if group and group.scales else "turned" if group and group.signs else "other"
        )
        own = (*layer.own, *_statistics(layout, layer.own))
        size = math.prod(layer.weight.shape[1:]) // (layer.units_before if place else 1)
        classes = layer.units if is_last else 0
        role = Role(place, len(layers), edge=size, own=len(own) + 1, classes=classes)
        chain.append(
            ChainLayer(
                role,
                layer.weight,
                own=own,
                before=layer.units_before,
                kind=KINDS.index(kind),
            )
        )
    return tuple(chain), groups


def _group_of(layer: NeuronLayer, groups: Sequence[Group]) -> Group | None:
    """Return the group of units that this layer alone makes."""
    names = {layer.weight.name, *(entry.name for entry in layer.own)}
    for group in groups:
        if {m.name for m in group.members if m.axis == 0 and m.cost} == names:
            return group
    return None


def _statistics(layout: Layout, own: Sequence[Entry]) -> list[Entry]:
    """Return the running statistics of the norms among a layer's tensors."""
    owners = {e.name.rpartition(".")[0] for e in own if e.role == "norm"}
    return [
        entry
        for entry in layout.entries
        if entry.role == "buffer" and entry.name.rpartition(".")[0] in owners
    ]


def refuse_unknown(zoo: Zoo, chain: Sequence[ChainLayer], *, known: Sequence[Role]) -> None:
    """Refuse layers of a kind that was not learnt from; names the first of them."""
    unknown = next((layer for layer in chain if layer.role not in known), None)
    if unknown is not None:
        places = "; ".join(role.describe() for role in known)
        raise ShapeMismatch(
            f"{zoo.path}: {unknown.weight.name} is a {unknown.role.describe()}, and the predictor "
            f"learnt of {places}: fit one with a zoo of this architecture among its zoos"
        )


def _refusal(zoo: Zoo) -> ConfigError:
    return ConfigError(
        f"{zoo.path}: the networks ({zoo.facts.network.named}) are no chain of linear layers and "
        "convolutions, each of which takes the layer before it alone, with at least one hidden "
        "layer, as MLPs and CNNs are: the predictor graph does not know them; choose probes or "
        "statistics"
    )
