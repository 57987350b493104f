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

from dwf.backbones.config import NeuralGraphConfig
from dwf.backbones.embedding import ConditionEmbedding, embed, modulated, time_layers, zeroed
from dwf.backbones.gelu import Gelu
from dwf.backbones.linear import Linear
from dwf.errors import ConfigError

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

    def forward(
        self,
        nodes: list[torch.Tensor],
        edges: list[torch.Tensor],
        time_BW: torch.Tensor,
        are_there: list[torch.Tensor] | None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return nodes, each [B, U, W], and edges, each [B, E, W]; see `NeuralGraph`."""
        shift, scale, gate, edge_gate = self.modulate(time_BW).unsqueeze(1).chunk(4, dim=2)
        units = [modulated(x_BUW, shift, scale) for x_BUW in nodes]
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


class NeuralGraph(nn.Module):
    """Blocks over the neural graph under adaptive modulation by time; its output begins at zero.

    Args:
        config: its settings.
        groups: for each layer of the coded network (U tokens, numbers of each), as of `neurons`.
        conditioned: whether it learns what a condition means.

    Raises:
        ConfigError: the groups are not those of an MLP; of one hidden layer, all might be.
    """

    def __init__(
        self,
        config: NeuralGraphConfig,
        groups: Sequence[tuple[int, int]],
        conditioned: bool = False,
    ):
        super().__init__()
        width = config.width
        self.groups = tuple(groups)
        self.widths = widths_of(groups)
        self.embed_time = time_layers(width)
        self.inputs_UW = nn.Parameter(_PLACE_STD * torch.randn(self.widths[0], width))
        self.outputs_UW = nn.Parameter(_PLACE_STD * torch.randn(self.widths[-1], width))
        num = len(self.widths) - 1
        self.enter_nodes = nn.ModuleList(Linear(1, width) for _ in range(num))
        self.enter_edges = nn.ModuleList(Linear(1, width) for _ in range(num))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.modulate = zeroed(Linear(width, 4 * width))
        self.leave_nodes = nn.ModuleList(zeroed(Linear(width, 1)) for _ in range(num))
        self.leave_edges = nn.ModuleList(zeroed(Linear(width, 1)) for _ in range(num))
        self.embed_condition = ConditionEmbedding(width) if conditioned else None

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Return the matrices between hidden features, for `training.optimizer` muon."""
        layers = (
            (b.of_edge, b.of_ends, b.update, b.perceptron[0], b.perceptron[2]) for b in self.blocks
        )
        return [layer.weight for block in layers for layer in block]

    def forward(
        self,
        x_BK: torch.Tensor,
        t_B: torch.Tensor,
        condition_B: torch.Tensor | None = None,
        present_BK: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return a vector for each of x_BK at times t_B in [0, 1], shape [B, K].

        Args:
            x_BK: sequences, token after token.
            t_B: their times, or, of shape [1], the one time of all.
            condition_B: standardised conditions, NaN for none; or, of shape [1], that of all.
            present_BK: bool, which numbers each sequence has; None: all.
        """
        time_BW = embed(self.embed_time, self.embed_condition, t_B, condition_B)
        are_there = None
        if present_BK is not None:
            x_BK = x_BK * present_BK
            are_there = [there.unsqueeze(3) for _, there in self._parts(present_BK)]
        nodes, edges = self._enter(x_BK)
        for block in self.blocks:
            nodes, edges = block(nodes, edges, time_BW, are_there)
        out_BK = self._leave(nodes, edges, time_BW)
        return out_BK if present_BK is None else out_BK * present_BK

    def _parts(self, x_BK: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield of each layer of units (biases [B, U], weights into it [B, U, S])."""
        layers = x_BK.split([count * size for count, size in self.groups], dim=1)
        outgoing = None
        for i, (layer, group) in enumerate(zip(layers, self.groups, strict=True)):
            token_BUC, before = layer.unflatten(1, group), self.widths[i]
            if i == len(self.groups) - 1:
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
        modulation = self.modulate(time_BW).unsqueeze(1).chunk(4, dim=2)
        tokens = []
        for i, (node, edge) in enumerate(zip(nodes[1:], edges, strict=True)):
            bias = self.leave_nodes[i](modulated(node, *modulation[:2]))
            weights = self.leave_edges[i](modulated(edge, *modulation[2:]))
            weights = weights.view(len(edge), self.widths[i + 1], self.widths[i])
            tokens.append([weights, bias])
        outgoing, bias = tokens.pop()
        tokens[-1].append(outgoing.transpose(1, 2))
        return torch.cat(
            [torch.cat(parts, 2).flatten(1) for parts in tokens] + [bias.flatten(1)], 1
        )


def widths_of(groups: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return the widths of the MLP whose tokens these are, from its inputs to its outputs.

    Raises:
        ConfigError: no MLP has such tokens.
    """
    *hidden, (num_last, outputs) = groups
    widths = [hidden[0][1] - 1 - (outputs if len(hidden) == 1 else 0)] if hidden else [0]
    fits = num_last == 1 and widths[0] > 0
    for i, (count, size) in enumerate(hidden):
        fits = fits and size == widths[-1] + 1 + (outputs if i == len(hidden) - 1 else 0)
        widths.append(count)
    if not fits:
        raise ConfigError(
            "backbone.kind = 'neural_graph' takes tokens of MLPs with biases, as codec neurons "
            "makes them: of each unit its incoming weights and bias, of the last hidden layer its "
            "outgoing weights, and one token of the output's biases. The codes are of (tokens, "
            f"numbers of each) {', '.join(map(str, map(tuple, groups)))}: choose the backbone "
            "transformer; of several architectures, one must be the widest in every layer"
        )
    return (*widths, outputs)
