"""Messages between the units of a network along its weights, pooled into one vector.

A network is a graph: its units are nodes, described by bias, norm and the norm of their incoming
weights; its weights are edges, a convolution's kernel one edge. In a round each edge hears its two
ends, and each node the mean of what the edges into it and out of it say. Maps are shared between
all edges and all nodes; layers are told apart by what is learnt for the role of each
(`chain.Role`), and units of ReLU from those of tanh by the symmetries that tracing finds. So
reordering hidden units changes nothing. Scales and signs are fixed before (`gauge`). Weights are
scaled by the root of fan-in and messages are means, so that one module reads wide and narrow
networks. Inputs have places: units of the first layer begin as a linear map of their row.

Source: Kofinas et al., Graph Neural Networks for Learning Equivariant Representations of Neural
Networks, arXiv 2403.12143, sections 3.1 and 3.3; fan-in scaling over widths arXiv 2610.00420.

Shape suffixes: B networks of a batch, U units of a layer, S units of the layer before, E numbers of
an edge, F numbers of a unit, W width, V numbers of a vector.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dwf.plain import State
from dwf.predictors.chain import KINDS, ChainLayer, Role, read_chain, refuse_unknown
from dwf.predictors.config import GraphConfig
from dwf.predictors.examples import Examples
from dwf.predictors.gauge import Gauge
from dwf.predictors.joined import Joined, Reader, Reading
from dwf.predictors.reading_config import MessagesConfig
from dwf.zoo.moments import Sources, blocks_of
from dwf.zoo.store import Zoo


@dataclass(frozen=True)
class Chained:
    """Networks of one architecture, layer after layer, in units of the training networks."""

    roles: tuple[int, ...]
    """Number of each layer's role among those learnt."""
    kinds: tuple[int, ...]
    """Number of each layer's kind of units."""
    units: tuple[torch.Tensor, ...]
    """[B, U, F] of each layer."""
    edges: tuple[torch.Tensor, ...]
    """[B, U, E] of the first layer, [B, U, S, E] of others."""


class _Entry(nn.Module):
    """Maps of the layers of one role: into the width, and out of it."""

    def __init__(self, role: Role, config: MessagesConfig):
        super().__init__()
        width = config.width
        self.of_unit = nn.Linear(role.own, width)
        self.of_edge = nn.Sequential(
            nn.Linear(role.edge, width), nn.SiLU(), nn.Linear(width, width)
        )
        if role.is_first:
            self.of_edge = nn.Linear(role.edge, width)
        places = max(role.classes, 1)
        self.places_UW = nn.Parameter(0.5 * torch.randn(places, width))
        self.leave = nn.Linear(2 * width, config.vector)

    def pooled(self, x_BUW: torch.Tensor) -> torch.Tensor:
        """Return the layer's part of the vector, [B, V]."""
        x_BUW = functional.layer_norm(x_BUW, x_BUW.shape[2:])
        return self.leave(torch.cat([x_BUW.mean(1), x_BUW.amax(1)], 1))


class _Round(nn.Module):
    """Edges hear their ends, nodes hear their edges."""

    def __init__(self, width: int):
        super().__init__()
        self.of_edge = nn.Linear(width, width)
        self.of_ends = nn.Linear(width, 2 * width)
        self.update = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(3 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.norm = nn.LayerNorm(width)

    def forward(
        self, nodes: list[torch.Tensor], edges: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return nodes, each [B, U, W], and edges between them, each [B, U, S, W]."""
        units = [self.norm(x_BUW) for x_BUW in nodes]
        ends = [self.of_ends(x_BUW).chunk(2, dim=2) for x_BUW in units]
        into, out_of, moved = [torch.zeros_like(nodes[0])], [], []
        for i, x_BUSW in enumerate(edges):
            source, target = ends[i][0].unsqueeze(1), ends[i + 1][1].unsqueeze(2)
            said_BUSW = functional.silu(self.of_edge(x_BUSW) + source + target)
            moved.append(x_BUSW + self.update(said_BUSW))
            into.append(said_BUSW.mean(2))
            out_of.append(said_BUSW.mean(1))
        out_of.append(torch.zeros_like(nodes[-1]))
        heard = zip(nodes, units, into, out_of, strict=True)
        return [x + self.perceptron(torch.cat(parts, 2)) for x, *parts in heard], moved


class Messages(Reading):
    """Rounds of messages over networks of any layouts of known roles.

    Args:
        config: its settings.
        roles: kinds of layers.
    """

    def __init__(self, config: MessagesConfig, roles: Sequence[Role]):
        super().__init__()
        self.size = config.vector
        self.entries = nn.ModuleList(_Entry(role, config) for role in roles)
        self.kinds_W = nn.Parameter(0.5 * torch.randn(len(KINDS), config.width))
        self.rounds = nn.ModuleList(_Round(config.width) for _ in range(config.rounds))

    def forward(self, parts: list[Chained]) -> torch.Tensor:
        """Return vectors of all networks, one part after the other, [B, V]."""
        vectors_BV = torch.cat([self._read(part) for part in parts])
        there = {role for part in parts for role in part.roles}
        absent = [entry for r, entry in enumerate(self.entries) if r not in there]
        # Ranks agree on which parameters learn, whatever their networks are.
        return vectors_BV + sum(0 * p.sum() for entry in absent for p in entry.parameters())

    def _read(self, part: Chained) -> torch.Tensor:
        entries = [self.entries[role] for role in part.roles]
        nodes = [
            entry.of_unit(units) + entry.places_UW + self.kinds_W[kind]
            for entry, units, kind in zip(entries, part.units, part.kinds, strict=True)
        ]
        first, *between = zip(entries, part.edges, strict=True)
        nodes[0] = nodes[0] + first[0].of_edge(first[1])
        edges = [entry.of_edge(x_BUSE) for entry, x_BUSE in between]
        for one in self.rounds:
            nodes, edges = one(nodes, edges)
        return sum(entry.pooled(x) for entry, x in zip(entries, nodes, strict=True))


@dataclass(frozen=True)
class _Scaling:
    """Units in which the module is given the layers of one role."""

    shift_F: torch.Tensor
    scale_F: torch.Tensor
    edge: float

    def of_units(self, units: torch.Tensor) -> torch.Tensor:
        return ((units - self.shift_F) / self.scale_F).asinh()

    def of_edges(self, edges: torch.Tensor) -> torch.Tensor:
        return (edges / self.edge).asinh()


class GraphReader(Reader[MessagesConfig, list[Chained]]):
    """Makes graphs of networks.

    Args:
        config: its settings.
        device: where messages are computed.
    """

    roles: tuple[Role, ...]
    scalings: tuple[_Scaling, ...]

    def __init__(self, config: MessagesConfig, device: torch.device):
        super().__init__(config, device)
        self._chains: dict[Zoo, tuple[ChainLayer, ...]] = {}
        self._gauges: dict[Zoo, Gauge] = {}

    def prepare(self, train: Examples) -> None:
        """Learn roles and scalings of layers from training networks; see the base."""
        sources = [source for source in train.sources if len(source[1])]
        found = {layer.role: None for zoo, _ in sources for layer in self._chain(zoo)}
        self.roles = tuple(found)
        sums = {role: _Sums(role.own) for role in self.roles}
        for zoo, rows in blocks_of(sources):
            tensors = zoo.layout.unflatten(self._gauges[zoo].fixed(rows))
            for layer in self._chain(zoo):
                sums[layer.role].add(layer.units(tensors), layer.edges(tensors))
        self.scalings = tuple(sums[role].scaling(self.device) for role in self.roles)

    def new_module(self) -> Messages:
        """Return messages that say nothing of use yet; see the base."""
        return Messages(self.config, self.roles)

    def inputs(self, sources: Sources) -> list[Chained]:
        """Return the graphs of networks; see the base."""
        return [self._chained(zoo, rows) for zoo, rows in sources]

    def _chained(self, zoo: Zoo, rows: np.ndarray) -> Chained:
        chain = self._chain(zoo)
        refuse_unknown(zoo, chain, known=self.roles)
        roles = tuple(self.roles.index(layer.role) for layer in chain)
        tensors = zoo.layout.unflatten(self._gauges[zoo].fixed(rows).to(self.device))
        layers = [(layer, self.scalings[r]) for layer, r in zip(chain, roles, strict=True)]
        return Chained(
            roles,
            tuple(layer.kind for layer in chain),
            tuple(scaling.of_units(layer.units(tensors)) for layer, scaling in layers),
            tuple(scaling.of_edges(layer.edges(tensors)) for layer, scaling in layers),
        )

    def _chain(self, zoo: Zoo) -> tuple[ChainLayer, ...]:
        if zoo not in self._chains:
            self._chains[zoo], groups = read_chain(zoo)
            self._gauges[zoo] = Gauge(zoo, groups if self.config.gauge == "fixed" else ())
        return self._chains[zoo]

    def own(self) -> State:
        """Return roles and scalings; see the base."""
        return {
            "roles": [asdict(role) for role in self.roles],
            "shifts": [scaling.shift_F.cpu() for scaling in self.scalings],
            "scales": [scaling.scale_F.cpu() for scaling in self.scalings],
            "edges": [scaling.edge for scaling in self.scalings],
        }

    def take_own(self, own: State) -> None:
        """Take roles and scalings; see the base."""
        self.roles = tuple(Role(**role) for role in own["roles"])
        parts = zip(own["shifts"], own["scales"], own["edges"], strict=True)
        self.scalings = tuple(
            _Scaling(shift.to(self.device), scale.to(self.device), edge=edge)
            for shift, scale, edge in parts
        )


class _Sums:
    """Moments of the layers of one role over networks and units, float64."""

    def __init__(self, own: int):
        self.count, self.edges = 0, 0
        self.sum_F, self.squares_F = torch.zeros(2, own, dtype=torch.float64)
        self.edge_squares = 0.0

    def add(self, units: torch.Tensor, edges: torch.Tensor) -> None:
        of_units = units.flatten(0, 1).double()
        self.count += len(of_units)
        self.edges += edges.numel()
        self.sum_F = self.sum_F + of_units.sum(0)
        self.squares_F = self.squares_F + of_units.square().sum(0)
        self.edge_squares += edges.double().square().sum().item()

    def scaling(self, device: torch.device) -> _Scaling:
        shift_F = self.sum_F / self.count
        scale_F = (self.squares_F / self.count - shift_F.square()).clamp(min=0).sqrt()
        scale_F = torch.where(scale_F > 1e-6 * (1 + shift_F.abs()), scale_F, 1.0)
        edge = (self.edge_squares / self.edges) ** 0.5 or 1.0
        return _Scaling(shift_F.float().to(device), scale_F.float().to(device), edge=edge)


class Graph(Joined):
    """A head over messages between units; see `GraphConfig`."""

    settings = GraphConfig
