"""A graph network over the neural graph: units are nodes, weights are edges, biases are of nodes.

A block lets each edge hear its two ends, and each node the mean of what the edges into it and out
of it say; time scales and shifts what nodes say, and gates what is added. All maps are shared
between edges, and between nodes, so reordering the units of any hidden layer, with the weights into
and out of them, reorders the outcome. Inputs and outputs of the network have places: a learned
vector each.

It reads codes of `neurons` of MLPs with biases; of several architectures, where one is the widest
in every layer.

Source: graphs, and edges that are updated, as in Kofinas et al., arXiv 2403.12143, sections 3.1 and
3.3; a flow over them, Erdogan, arXiv 2504.03710. Theirs hear by attention or by several aggregates,
here it is the mean; blocks are modulated as in `transformer.py`.

Shape suffixes: B sequences of a batch, K numbers of a sequence, U units of a layer, S units that a
layer's weights come from, C numbers of a token, E edges of a layer, W width.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional

from dwf.backbones.config import NeuralGraphConfig, widths_of
from dwf.backbones.embedding import ConditionEmbedding, modulated, zeroed
from dwf.backbones.gelu import Gelu
from dwf.backbones.linear import Linear
from dwf.backbones.shape import Shape
from dwf.backbones.token_backbone import TokenBackbone

# Deviation of the vectors of inputs and outputs at first, beside numbers of deviation 1.
_PLACE_STD = 0.5


class _Block(nn.Module):
    """Edges hear their ends, nodes hear their edges."""

    def __init__(self, config: NeuralGraphConfig):
        super().__init__()
        width, hidden = config.width, config.width * config.expansion
        self.modulate = zeroed(Linear(width, 4 * width))
        self.of_edge = Linear(width, width)
        self.of_ends = Linear(width, 2 * width)
        self.say = nn.SiLU()  # of all edges: torch has no fast GELU in bf16 on a CPU
        self.update = Linear(width, width)
        self.perceptron = nn.Sequential(Linear(3 * width, hidden), Gelu(), Linear(hidden, width))

    def hidden_layers(self) -> list[nn.Linear]:
        first, _, second = self.perceptron
        return [self.of_edge, self.of_ends, self.update, first, second]

    def forward(
        self,
        nodes: list[torch.Tensor],
        edges: list[torch.Tensor],
        time_BW: torch.Tensor,
        are_there: list[torch.Tensor] | None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return nodes, each [B, U, W], and edges, each [B, E, W]; see `NeuralGraph`."""
        shift, scale, gate, edge_gate = self.modulate(time_BW).unsqueeze(1).chunk(4, dim=2)
        units = [modulated(x_BUW, shift, scale=scale) for x_BUW in nodes]
        ends = [self.of_ends(x_BUW).chunk(2, dim=2) for x_BUW in units]
        into, out_of, moved = [torch.zeros_like(units[0])], [], []
        for i, x_BEW in enumerate(edges):
            said_BEW = self.of_edge(functional.layer_norm(x_BEW, x_BEW.shape[2:]))
            source, target = ends[i][0].unsqueeze(1), ends[i + 1][1].unsqueeze(2)
            pairs = target.shape[1], source.shape[2]
            said_BUSW = self.say(said_BEW.unflatten(1, pairs) + source + target)
            moved.append(torch.addcmul(x_BEW, edge_gate, self.update(said_BUSW.flatten(1, 2))))
            there = None if are_there is None else are_there[i]
            into.append(_mean(said_BUSW, 2, there))
            out_of.append(_mean(said_BUSW, 1, there))
        out_of.append(torch.zeros_like(units[-1]))
        heard = zip(nodes, units, into, out_of, strict=True)
        return [
            torch.addcmul(x_BUW, gate, self.perceptron(torch.cat(parts, 2)))
            for x_BUW, *parts in heard
        ], moved


def _mean(x_BUSW: torch.Tensor, dim: int, there: torch.Tensor | None) -> torch.Tensor:
    if there is None:
        return x_BUSW.mean(dim)
    return (x_BUSW * there).sum(dim) / there.sum(dim).clamp(min=1)


class NeuralGraph(TokenBackbone):
    """Blocks over the neural graph under adaptive modulation by time; its output begins at zero.

    Args:
        config: its settings.
        shape: sections are the layers of the coded network (U tokens, numbers of each), as of
            `neurons`.
        told: numbers of each condition, see `ConditionEmbedding`; none: it is told nothing.

    Raises:
        ConfigError: the sections are not those of an MLP; of one hidden layer, all might be.
    """

    def __init__(self, config: NeuralGraphConfig, shape: Shape, *, told: Sequence[int] = ()):
        super().__init__(config.width, shape)
        width = config.width
        self.widths = widths_of(self.sections)
        self.inputs_UW = nn.Parameter(_PLACE_STD * torch.randn(self.widths[0], width))
        self.outputs_UW = nn.Parameter(_PLACE_STD * torch.randn(self.widths[-1], width))
        num = len(self.widths) - 1
        self.enter_nodes = nn.ModuleList(Linear(1, width) for _ in range(num))
        self.enter_edges = nn.ModuleList(Linear(1, width) for _ in range(num))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.modulate = zeroed(Linear(width, 4 * width))
        self.leave_nodes = nn.ModuleList(zeroed(Linear(width, 1)) for _ in range(num))
        self.leave_edges = nn.ModuleList(zeroed(Linear(width, 1)) for _ in range(num))
        self.embed_condition = ConditionEmbedding(width, told) if told else None

    def _run(
        self, x_BK: torch.Tensor, time_BW: torch.Tensor, present_BK: torch.Tensor | None
    ) -> torch.Tensor:
        are_there = None
        if present_BK is not None:
            are_there = [there.unsqueeze(3) for _, there in self._parts(present_BK)]
        nodes, edges = self._enter(x_BK)
        for block in self.blocks:
            nodes, edges = block(nodes, edges, time_BW, are_there)
        return self._leave(nodes, edges, time_BW)

    def _parts(self, x_BK: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield of each layer of units (biases [B, U], weights into it [B, U, S])."""
        outgoing = None
        for i, token_BUC in enumerate(self._layers(x_BK)):
            before = self.widths[i]
            if i == len(self.sections) - 1:
                yield token_BUC.squeeze(1), outgoing.transpose(1, 2)
                return
            weights, bias, outgoing = token_BUC.tensor_split([before, before + 1], dim=2)
            yield bias.squeeze(2), weights

    def _enter(self, x_BK: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        nodes, edges = [self.inputs_UW.expand(len(x_BK), -1, -1)], []
        maps = zip(self.enter_nodes, self.enter_edges, strict=True)
        for (bias_BU, weight_BUS), (enter_node, enter_edge) in zip(
            self._parts(x_BK), maps, strict=True
        ):
            nodes.append(enter_node(bias_BU.unsqueeze(2)))
            edges.append(enter_edge(weight_BUS.flatten(1).unsqueeze(2)))
        nodes[-1] = nodes[-1] + self.outputs_UW
        return nodes, edges

    def _leave(
        self, nodes: list[torch.Tensor], edges: list[torch.Tensor], time_BW: torch.Tensor
    ) -> torch.Tensor:
        """Return the numbers of nodes and edges where `_parts` found them."""
        modulation = self.modulate(time_BW).unsqueeze(1)
        node_shift, node_scale, edge_shift, edge_scale = modulation.chunk(4, dim=2)
        tokens = []
        for i, (node, edge) in enumerate(zip(nodes[1:], edges, strict=True)):
            bias = self.leave_nodes[i](modulated(node, node_shift, scale=node_scale))
            weights = self.leave_edges[i](modulated(edge, edge_shift, scale=edge_scale))
            weights = weights.view(len(edge), self.widths[i + 1], self.widths[i])
            tokens.append([weights, bias])
        outgoing, bias = tokens.pop()
        tokens[-1].append(outgoing.transpose(1, 2))
        return torch.cat(
            [torch.cat(parts, 2).flatten(1) for parts in tokens] + [bias.flatten(1)], 1
        )
