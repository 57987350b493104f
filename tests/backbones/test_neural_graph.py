"""The graph network: permuted units, permuted velocity; messages against a loop over edges."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from dwf.align.groups import permute, random_orders
from dwf.align.symmetry import symmetry_of
from dwf.backbones.config import (
    NeuralGraphConfig,
    TransformerConfig,
    build_backbone,
    widths_of,
)
from dwf.backbones.shape import Shape
from dwf.codecs.config import NeuronsConfig
from dwf.codecs.neurons.codec import NeuronsCodec
from dwf.errors import ConfigError
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.run_folder import RunFolder

SMALL = NeuralGraphConfig(width=8, depth=2)
# Tokens of an MLP 3-5-4-2: incoming weights and bias, of the last hidden layer also the outgoing.
SECTIONS = ((5, 4), (4, 5 + 1 + 2), (1, 2))
SIZE = 5 * 4 + 4 * 8 + 2


def backbone(config=SMALL, sections=SECTIONS, told=(), spread=0.5):
    torch.manual_seed(0)
    size = sum(count * numbers for count, numbers in sections)
    module = build_backbone(config, Shape(size, sections), told=told)
    if spread:  # it begins at zero, and would be equivariant whatever it computes
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=spread)
    return module


def test_widths_are_those_of_the_network():
    assert widths_of(SECTIONS) == (3, 5, 4, 2)
    assert widths_of(((16, 64 + 1 + 10), (1, 10))) == (64, 16, 10)


@pytest.mark.parametrize(
    "sections",
    [
        ((5, 4), (4, 7), (1, 2)),  # the outgoing weights of the last hidden layer are missing
        ((5, 4), (4, 5 * 9 + 1 + 2), (1, 2)),  # kernels of 3 x 3
        ((5, 6), (4, 5 + 3 + 2), (1, 2)),  # with norms
        ((5, 4), (2, 6), (3, 7), (1, 2)),  # of two networks, each wider than the other somewhere
        ((5, 4), (4, 8), (2, 1)),  # no token of the output
        ((1, 2),),
        ((3, 3), (1, 2)),  # no inputs
    ],
)
def test_tokens_of_other_networks_are_refused(sections):
    with pytest.raises(ConfigError, match=r"'neural_graph' takes tokens of MLPs with biases"):
        backbone(sections=sections)


def test_vectors_and_odd_widths_are_refused():
    with pytest.raises(ConfigError, match=r"'neural_graph' takes tokens.*vectors of 54 numbers"):
        build_backbone(SMALL, Shape(SIZE))
    with pytest.raises(ValueError, match="width = 7 must be even"):
        replace(SMALL, width=7)


@pytest.mark.parametrize("widths", [(6, 5, 3), (6, 5, 4, 3)])
def test_permuted_units_of_any_layer_give_the_permuted_velocity(make_zoo, tmp_path, widths):
    """Units are permuted in the networks, by the code that aligns them, not in the tokens."""
    zoo = make_zoo(count=4, widths=widths)
    codec = NeuronsCodec(NeuronsConfig(standardise="none"))
    rows = zoo.rows("train")
    codec.fit([(zoo, rows)], [], run=RunFolder(tmp_path / "run", {}))
    weights_ND = torch.from_numpy(zoo.read())
    groups = symmetry_of(build_network(MLPConfig(widths)), zoo.layout, input_shape=zoo.input_shape)
    codes = codec.encode(weights_ND, zoo.layout)
    module = backbone(sections=codes.shape.sections).double()
    t_N = torch.rand(len(weights_ND), dtype=torch.float64)

    def velocity(weights_ND):
        """In the order of the weights."""
        codes = codec.encode(weights_ND, zoo.layout)
        mask = codes.shape.mask.flatten()
        out_NK = module(codes.values.flatten(1)[:, mask].double(), t_N)
        values = torch.zeros(len(codes), mask.numel())
        values[:, mask] = out_NK.detach().float()
        return codec.decode(replace(codes, values=values.view_as(codes.values)), zoo.layout)

    orders = random_orders(groups, len(weights_ND), seed=1)
    found = velocity(permute(weights_ND, zoo.layout, groups=groups, orders=orders))
    wanted = permute(velocity(weights_ND), zoo.layout, groups=groups, orders=orders)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert (found - velocity(weights_ND)).abs().max() > 0.1


@pytest.mark.parametrize("places", ["inputs_UW", "outputs_UW"])
def test_inputs_and_outputs_have_places(places):
    """Without them two inputs, or two outputs, could change places like two hidden units."""
    module = backbone().double()
    x, t = torch.randn(2, SIZE, dtype=torch.float64), torch.rand(2, dtype=torch.float64)
    order = torch.arange(SIZE)
    of_inputs, of_outputs = order[:20].view(5, 4)[:, :2], order[20:52].view(4, 8)[:, 6:]
    of_biases = order[52:].view(1, 2)
    for pair in [of_inputs] if places == "inputs_UW" else [of_outputs, of_biases]:
        pair.copy_(pair.flip(1).clone())
    wanted = module(x, t)[:, order]
    assert (module(x[:, order], t) - wanted).abs().max() > 0.01
    getattr(module, places).data.zero_()
    wanted = module(x, t)[:, order]
    torch.testing.assert_close(module(x[:, order], t), wanted, rtol=0, atol=1e-12)


def test_messages_are_what_a_loop_over_edges_computes():
    """One block of an MLP 3-5-4-2 against a plain loop over units and weights."""
    module = backbone(replace(SMALL, depth=1)).double()
    block = module.blocks[0]
    x, t = torch.randn(1, SIZE, dtype=torch.float64), torch.rand(1, dtype=torch.float64)
    norm = nn.functional.layer_norm
    time = module.embed_time(t)
    shift, scale, gate, edge_gate = block.modulate(time)[0].chunk(4)
    first, second, last = x[0].split([20, 32, 2])
    first, second = first.view(5, 4), second.view(4, 8)
    biases = [first[:, 3], second[:, 5], last]
    weights = [first[:, :3], second[:, :5], second[:, 6:].T]
    nodes = [module.inputs_UW] + [
        torch.stack([module.enter_nodes[i](b.view(1)) for b in bias])
        for i, bias in enumerate(biases)
    ]
    nodes[3] = nodes[3] + module.outputs_UW
    says = [norm(node, (8,)) * (1 + scale) + shift for node in nodes]
    edges, heard = [], [[[[], []] for _ in node] for node in nodes]
    for i, weight in enumerate(weights):
        layer = {}
        for target in range(weight.shape[0]):
            for source in range(weight.shape[1]):
                edge = module.enter_edges[i](weight[target, source].view(1))
                source_part = block.of_ends(says[i][source])[:8]
                target_part = block.of_ends(says[i + 1][target])[8:]
                message = block.of_edge(norm(edge, (8,))) + source_part + target_part
                message = nn.functional.silu(message)
                layer[target, source] = edge + edge_gate * block.update(message)
                heard[i + 1][target][0].append(message)
                heard[i][source][1].append(message)
        edges.append(layer)
    zero = torch.zeros(8, dtype=torch.float64)
    moved = []
    for layer, said, hears in zip(nodes, says, heard, strict=True):
        units = []
        for node, own, (into, out_of) in zip(layer, said, hears, strict=True):
            means = [sum(part, zero) / max(len(part), 1) for part in (into, out_of)]
            units.append(node + gate * block.perceptron(torch.cat([own, *means])))
        moved.append(units)
    shift, scale, edge_shift, edge_scale = module.modulate(time)[0].chunk(4)

    def leave(layer, one, shift, scale):
        return layer(norm(one, (8,)) * (1 + scale) + shift)

    bias = [
        [leave(module.leave_nodes[i], unit, shift, scale) for unit in units]
        for i, units in enumerate(moved[1:])
    ]
    weight = [
        {at: leave(module.leave_edges[i], e, edge_shift, edge_scale) for at, e in layer.items()}
        for i, layer in enumerate(edges)
    ]
    wanted = []
    for u in range(5):
        wanted += [weight[0][u, s] for s in range(3)] + [bias[0][u]]
    for u in range(4):
        wanted += [weight[1][u, s] for s in range(5)] + [bias[1][u]]
        wanted += [weight[2][o, u] for o in range(2)]
    wanted += bias[2]
    torch.testing.assert_close(module(x, t)[0], torch.cat(wanted), rtol=0, atol=1e-12)


def test_a_narrow_network_is_moved_as_by_a_graph_of_its_own_size():
    module = backbone(told=(1,)).double()
    narrow = ((3, 4), (2, 3 + 1 + 2), (1, 2))
    first, second = torch.zeros(5, 4), torch.zeros(4, 8)
    first[:3], second[:2, [0, 1, 2, 5, 6, 7]] = 1, 1
    mask = torch.cat([first.flatten(), second.flatten(), torch.ones(2)]).bool()
    twin = build_backbone(SMALL, Shape(int(mask.sum()), narrow), told=(1,)).double()
    twin.load_state_dict(module.state_dict())  # no weight depends on widths of hidden layers
    x, t = torch.randn(3, SIZE, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    condition = torch.tensor([[0.5], [math.nan], [-1.0]], dtype=torch.float64)
    present = torch.stack([mask, torch.ones(SIZE, dtype=torch.bool), mask])  # beside a wide one
    found = module(x, t, condition, present)
    torch.testing.assert_close(found[1:2], module(x, t, condition)[1:2], rtol=0, atol=1e-12)
    for row in (0, 2):
        at = slice(row, row + 1)
        wanted = twin(x[at][:, mask], t[at], condition[at])
        torch.testing.assert_close(found[at][:, mask], wanted, rtol=0, atol=1e-12)
        assert (found[row][~mask] == 0).all() and wanted.abs().max() > 0.1


def test_begins_at_zero_and_every_weight_learns():
    module = backbone(spread=0)
    x, t, wanted = torch.randn(32, SIZE), torch.rand(32), torch.randn(32, SIZE)
    assert torch.equal(module(x, t), torch.zeros(32, SIZE))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(4):  # the zeroed layers let gradients through one step after another
        optimizer.zero_grad()
        (module(x, t) - wanted).square().mean().backward()
        optimizer.step()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())
    hidden = {id(p) for p in module.hidden_matrices()}
    assert len(hidden) == 2 * 5 and hidden < {id(p) for p in module.parameters()}


def test_only_the_last_hidden_layers_tokens_are_exchangeable():
    assert SMALL.exchangeable(SECTIONS) == (False, True, True)
    assert SMALL.exchangeable(SECTIONS[1:]) == (True, True)
    one_unit = ((5, 4), (1, 5 + 1 + 2), (1, 2))  # it takes the units before it by their order
    assert SMALL.exchangeable(one_unit) == (False, True, True)
    placed = TransformerConfig(positions=True, last_exchangeable=True)
    assert placed.exchangeable(one_unit) == (False, True, True)


def test_one_time_for_all_and_bf16_change_little():
    module, x = backbone(spread=0.2), torch.randn(7, SIZE)
    each = module(x, torch.full((7,), 0.3))
    torch.testing.assert_close(module(x, torch.tensor([0.3])), each)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x, torch.full((7,), 0.3)).float()
    assert (found - each).norm() < 0.03 * each.norm()
