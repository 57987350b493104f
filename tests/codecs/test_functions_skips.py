"""The functions codec of residual networks: sets of units against the aligner's traced groups,
tokens against what PyTorch's own modules compute, answers that come back, and what is refused.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dwf.align.groups import permute, random_orders, scale_units
from dwf.align.symmetry import symmetry_of
from dwf.codecs.codec import Codec
from dwf.codecs.config import FunctionsConfig
from dwf.codecs.functions import FunctionsCodec
from dwf.codecs.functions.chain import Chain
from dwf.codecs.functions.wiring import read_wiring
from dwf.errors import ConfigError
from dwf.networks.config import CifarResNetConfig, ResNetConfig
from dwf.networks.functional import batchnorm_layers, build_network, run_networks
from dwf.networks.held import floats_of
from dwf.networks.watched import watched
from dwf.randomness import seeded
from dwf.run_folder import RunFolder
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, split_networks, write_zoo
from tests.codecs.test_functions import images_of, logits, unreached
from tests.zoos import facts_of

BLOCKS = CifarResNetConfig(8, 2, 10, channels=1)
# A filter of the last stage has 72 weights: of about as many functions they are badly determined.
WHOLE = FunctionsConfig(inputs=90, functions=90, places=4, energy=1.0, ridge=1e-10)
COUNT = 75


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    """Networks as PyTorch initialises them, norms drawn, with running statistics of images."""
    layout = Layout.of(build_network(BLOCKS))
    weights = np.zeros((COUNT, layout.size), np.float32)
    columns = {
        "network": np.arange(COUNT),
        "epoch": np.ones(COUNT, np.int32),
        "split": split_networks(COUNT, 0.2, test=0.2, seed=0),
    }
    facts = facts_of(layout, BLOCKS)
    path = tmp_path_factory.mktemp("residual")
    data = facts.load_data()
    images = data.prepare(data.train.batch(torch.arange(100))[0])
    state = layout.unflatten(torch.from_numpy(weights))
    with seeded(0), torch.no_grad():
        for row in range(COUNT):
            network = build_network(BLOCKS).train()
            for norm in batchnorm_layers(network).values():
                norm.momentum = None
                nn.init.normal_(norm.weight, 1, 0.3)
                nn.init.normal_(norm.bias, 0, 0.5)
            network(images)
            for name, tensor in floats_of(network).items():
                state[name][row] = tensor
    return write_zoo(path / "sound", facts, num_rows=COUNT, blocks=[(columns, weights)])


@pytest.fixture(scope="module")
def codec(zoo, tmp_path_factory) -> FunctionsCodec:
    run = RunFolder(tmp_path_factory.mktemp("runs") / "residual", {"any": "settings"})
    return FunctionsCodec(WHOLE).fit([(zoo, zoo.rows("train"))], [], run=run)


def some_weights(zoo: Zoo) -> torch.Tensor:
    return torch.from_numpy(zoo.read(zoo.rows("test")))


ARCHITECTURES = {
    "projections alone": BLOCKS,
    "stages of two blocks": CifarResNetConfig(14, 2, 10, channels=1),
    "torchvision, basic": ResNetConfig(18, 2, 10, channels=1),
    "torchvision, bottlenecks and pooling": ResNetConfig(50, 2, 10, channels=1, stem="imagenet"),
}
each_architecture = pytest.mark.parametrize(
    "network", ARCHITECTURES.values(), ids=ARCHITECTURES.keys()
)


@each_architecture
def test_sets_of_units_are_the_groups_that_the_aligner_traces(network):
    built = build_network(network)
    layout = Layout.of(built)
    wiring = read_wiring(layout)
    groups = symmetry_of(built, layout, input_shape=(1, 8, 8))
    weights = {entry.name for entry in layout.entries if entry.role == "weight"}

    def names(group, axis):
        return {each.name for each in group.members if each.axis == axis and each.name in weights}

    written = [{wiring.layers[n].weight.name for n in layers} for layers in wiring.writers]
    taken = [
        {
            layer.weight.name
            for layer, number in zip(wiring.layers[1:], wiring.taken, strict=True)
            if number == each
        }
        for each in range(len(written))
    ]
    found = {frozenset(names(g, 0)): (frozenset(names(g, 1)), g.size) for g in groups}
    wanted = zip(map(frozenset, written), map(frozenset, taken), strict=True)
    assert found == {
        one: (other, wiring.units(number)) for number, (one, other) in enumerate(wanted)
    }
    streams = [group for group in groups if group.is_stream]
    assert len(streams) == sum(len(layers) > 1 for layers in wiring.writers) > 0


@each_architecture
def test_layers_are_computed_as_the_network_computes_them(network):
    """In the order of the wiring, with norms folded."""
    layout = Layout.of(build_network(network))
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, layout.size, generator=generator)
    state = layout.unflatten(weights)
    for name, each in state.items():
        if name.endswith("running_var"):
            each.abs_().add_(0.1)
    images = torch.randn(3, 1, 8, 8, generator=generator)
    wanted = run_networks(build_network(network), state, inputs=images)
    given = []
    chain = Chain(network, layout, inputs_MX=images)
    chain.walk(weights, lambda number, step: given.append(step.given_NMLU))
    assert len(given) == len(chain.layers)
    found = given[-1].squeeze(2)
    assert (found - wanted).norm() <= 1e-4 * wanted.norm()


def test_a_streams_token_is_what_pytorchs_modules_compute_for_one_network(zoo, codec):
    codes = codec.encode(torch.from_numpy(zoo.read([3])), zoo.layout)
    token_NUC = codec._raw(codes.values, zoo.layout)[3][0].double().numpy()
    network = zoo.build_network().double()
    state = zoo.layout.unflatten(torch.from_numpy(zoo.read([3])))
    network.load_state_dict({name: each[0] for name, each in state.items()}, strict=False)
    given = {}

    def note(name, _, __, output):
        given[name] = output.flatten(2).transpose(1, 2).flatten(0, 1).detach().numpy()

    norms = {"layer2.0.bn2": 4, "layer2.0.shortcut.1": 5}  # and which layer is normed
    with watched({name: network.get_submodule(name) for name in norms}, note), torch.no_grad():
        network(images_of(codec).double())
    parts, squares = [], 0.0
    for name, number in norms.items():
        read = given[name][codec.arrays[f"rows_{number}"]]
        functions = codec.arrays[f"functions_{number}"].astype(float)
        coded = (read - read.mean(0)).T @ functions / np.sqrt(len(functions))
        squares = squares + np.square(coded).sum(1)
        parts += [coded, read.mean(0)[:, None]]
    wanted = np.hstack(parts) / np.sqrt(squares)[:, None]
    np.testing.assert_allclose(token_NUC, wanted, atol=1e-4)
    of_first, of_later = 9 + 1, 90 + 1
    assert codec.shape.sections == (
        (2, of_first + of_later),
        *((2, of_later), (4, of_later), (4, 2 * of_later), (8, of_later)),
        (8, 2 * of_later + 10),
        (1, 10),
    )


def test_answers_of_residual_networks_come_back(zoo, codec):
    weights = some_weights(zoo)
    codes = codec.encode(weights, zoo.layout)
    back = codec.decode(codes, zoo.layout)
    wanted, found = (logits(zoo, codec, weights_ND=each) for each in (weights, back))
    assert (found.argmax(2) == wanted.argmax(2)).double().mean() >= 0.9999
    spread_N = wanted.std(1).mean(1)  # over images: a network's answers, not its constants
    assert ((found - wanted).abs().amax((1, 2)) <= 1e-4 * spread_N).all()
    assert unreached(codec, codes, zoo.layout).max() < 1e-4


def test_what_comes_back_has_statistics_of_the_inputs_as_pytorch_measures_them(zoo, codec):
    back = codec.decode(codec.encode(some_weights(zoo)[:1], zoo.layout), zoo.layout)
    network, taken = zoo.build_network(), {}
    state = {name: each[0] for name, each in zoo.layout.unflatten(back).items()}
    network.load_state_dict(state, strict=False)
    norms = batchnorm_layers(network)
    with (
        watched(norms, lambda name, _, inputs, __: taken.update({name: inputs[0]})),
        torch.no_grad(),
    ):
        network(images_of(codec))
    for name, norm in norms.items():
        mean, variance = taken[name].mean((0, 2, 3)), taken[name].var((0, 2, 3), correction=0)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-3, atol=1e-4)


def test_reordering_the_units_of_a_stream_or_a_block_reorders_tokens_alone(zoo, codec):
    groups = symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape)
    weights = some_weights(zoo)
    orders = random_orders(groups, len(weights), seed=3)
    moved = permute(weights, zoo.layout, groups=groups, orders=orders)
    found = codec.encode(moved, zoo.layout).values
    assert not torch.equal(found, codec.encode(weights, zoo.layout).values)
    # Sets stand in the order in which layers first write them.
    written = [
        "conv1",
        *(f"layer{stage}.0.{name}" for stage in (1, 2, 3) for name in ("conv1", "conv2")),
    ]
    written.remove("layer1.0.conv2")  # which writes the first stream, too
    at, expected = 0, codec.encode(weights, zoo.layout).values
    for name in written:
        member = (f"{name}.weight", 0)
        order_NU = next(
            order_NU
            for group, order_NU in zip(groups, orders, strict=True)
            if member in {(each.name, each.axis) for each in group.members}
        )
        part = slice(at, at + order_NU.shape[1])
        index = order_NU[:, :, None].expand(-1, -1, expected.shape[2])
        expected[:, part] = expected[:, part].gather(1, index)
        at = part.stop
    assert at == expected.shape[1] - 1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_scaling_the_units_of_a_stream_changes_no_code(zoo, codec):
    groups = symmetry_of(
        zoo.build_network(), zoo.layout, input_shape=zoo.input_shape, scale="balanced"
    )
    streams = [group for group in groups if group.is_stream and group.scales]
    assert len(streams) == 3
    weights = some_weights(zoo)
    scaled = weights.clone()
    for group in streams:
        factor = torch.linspace(0.5, 2, group.size).repeat(len(weights), 1)
        scale_units(zoo.layout.unflatten(scaled), group, factor_NU=factor)
    assert not torch.equal(weights, scaled)
    wanted, found = (codec.encode(each, zoo.layout).values for each in (weights, scaled))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-3)


def test_a_plan_tells_streams(zoo, codec):
    planned = FunctionsCodec.planned_shape(WHOLE, [zoo.layout], num_train=COUNT)
    assert planned == codec.shape
    config = replace(WHOLE, functions=12)
    first, streams, *layers = FunctionsCodec.describe(config, [(zoo, zoo.rows("train"))])
    assert "first layer in 9 of 9 directions" in first
    assert "6 sets of units; 3 of them are streams" in streams and "2 to 2 layers" in streams
    assert len(layers) == 8 and "layer 9 in 12 principal functions" in layers[-1]


def test_a_loaded_codec_is_the_saved_one_and_lets_gradients_through(zoo, codec, tmp_path):
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    codes = codec.encode(some_weights(zoo)[:3], zoo.layout)
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))
    values = codes.values.clone().requires_grad_()
    codec.decode(replace(codes, values=values), zoo.layout).square().mean().backward()
    assert values.grad.isfinite().all() and values.grad.any()


def test_a_dead_unit_is_told_and_stays_dead(zoo, codec):
    weights = some_weights(zoo)
    state = zoo.layout.unflatten(weights)
    state["layer1.0.bn1.weight"][:, 1] = 0
    state["layer1.0.bn1.bias"][:, 1] = -1
    state["layer3.0.bn2.bias"][0] = state["layer3.0.shortcut.1.bias"][0] = -1e3
    dead_NU = codec._coder.read(weights).dead_NU
    network, taken = zoo.build_network(), {}
    convs = {name: each for name, each in network.named_modules() if name.endswith("conv2")}
    watch = convs | {"linear": network.linear}
    within = {"layer1.0.conv2": slice(2, 4), "layer2.0.conv2": slice(4, 8)}  # units of each set
    within |= {"layer3.0.conv2": slice(12, 20), "linear": slice(20, 28)}
    for row in range(len(weights)):
        network.load_state_dict({name: each[row] for name, each in state.items()}, strict=False)
        with watched(watch, lambda name, _, inputs, __: taken.update({name: inputs[0]})):
            network(images_of(codec))
        for name, units in within.items():
            inputs = taken[name].flatten(2) if taken[name].dim() > 2 else taken[name][:, :, None]
            is_constant_U = (inputs == inputs[:1]).all(2).all(0)
            assert dead_NU[row, units].tolist() == is_constant_U.tolist()
    assert dead_NU[:, 3].all() and dead_NU[0, 20:].all() and not dead_NU.all(0)[20:].any()
    back = codec.decode(codec.encode(weights, zoo.layout), zoo.layout)
    assert back.isfinite().all()
    assert zoo.layout.unflatten(back)["layer1.0.conv2.weight"][:, :, 1].abs().max() < 1e-5


END = {"head.weight": (3, 2), "head.bias": (3,)}
STEM = {"one.weight": (2, 1, 3, 3)}
CONV = (2, 2, 3, 3)


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        (STEM | {"two.weight": CONV, "layer1.0.a.weight": CONV} | END, "two"),
        (STEM | {"layer1.0.a.weight": (4, 2, 3, 3)} | END, "layer1.0.a"),
        (
            STEM
            | {
                "layer1.0.a.weight": CONV,
                "between.weight": CONV,
                "layer2.0.a.weight": CONV,
            }
            | END,
            "between",
        ),
        (STEM | {"layer1.0.shortcut.weight": CONV} | END, "layer1.0.shortcut"),
        (STEM | {"layer1.0.a.weight": CONV}, "layer1.0.a"),
        (
            STEM | {"layer1.0.a.weight": CONV, "head.weight": (3, 8)},
            "head",
        ),
    ],
    ids=[
        "stem of two",
        "other width",
        "between blocks",
        "projection alone",
        "no head",
        "flattened",
    ],
)
def test_blocks_that_cannot_be_read_are_refused_by_layer(shapes, named):
    with pytest.raises(ConfigError, match=rf"cannot take {named}\.weight.*a stem of one layer"):
        read_wiring(Layout.of_shapes(shapes))
