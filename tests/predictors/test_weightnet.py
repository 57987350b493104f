"""WeightNet: sizes counted by hand, symmetries planted in every traced group, sets beside sets.

Whether a row changes under a symmetry is held to what its settings say, both ways: one that claims
an invariance may not change by more than 1e-5, one that does not has to change.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf.backbones.linear import ONEDNN, kernel_of
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.config import (
    CifarResNetConfig,
    CNNConfig,
    DenseNetConfig,
    MLPConfig,
    ViTConfig,
)
from dwf.networks.functional import build_network
from dwf.predictors.config import WeightNetConfig
from dwf.predictors.examples import Examples
from dwf.predictors.frames import Frames
from dwf.predictors.predictor import Predictor
from dwf.predictors.weightnet import WeightNet, planned_module, tokens_of
from dwf.run_folder import RunPart
from dwf.training.config import LoopConfig
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo
from tests.predictors.nets import changed, zoo_of_networks

FEW = LoopConfig(steps=3, batch_size=8, validate_every=3)
SMALL = WeightNetConfig(training=FEW, width=16, heads=2, cross_heads=4, hidden=32, dropout=0.0)
MLP = MLPConfig((64, 12, 10))
TANH = MLPConfig((64, 6, 5, 10), activation="tanh")
CNN = CNNConfig(channels=(4, 6), input=(1, 8, 8), paddings=1, pools=(2, 0), norm="batch")
NETWORKS = {"mlp": MLP, "tanh": TANH, "cnn": CNN}
FRAMES = {
    "norm_sort": {"canonical": "norm_sort"},
    "norm_sort, balanced": {"canonical": "norm_sort", "scale": "balanced"},
    "norm_sort, signs": {"canonical": "norm_sort", "signs": True},
    "activation_sort": {"canonical": "activation_sort", "activation_images": 64},
    "optimal_transport": {"canonical": "optimal_transport"},
    "sets": {"canonical": "none", "columns": "sorted"},
    "sets of tensors": {"canonical": "none", "columns": "sorted", "tokens": "layer"},
    "chunks in order": {"canonical": "norm_sort", "tokens": "global", "positions": True},
    "no order": {"canonical": "none"},
    "no order, positions": {"canonical": "none", "positions": True},
    "no order, sets, positions": {"canonical": "none", "columns": "sorted", "positions": True},
}


def examples(*zoos: Zoo) -> Examples:
    """Two properties that say nothing: these tests are about what is looked at."""
    count = sum(map(len, zoos))
    values_NP = np.random.default_rng(1).normal(size=(count, 2))
    return Examples([(zoo, np.arange(len(zoo))) for zoo in zoos], ("a", "b"), values_NP)


def fitted(config: WeightNetConfig, folder, *zoos: Zoo) -> WeightNet:
    net = WeightNet(config)
    net.fit(examples(*zoos), examples(*zoos), run=RunPart(folder / "run"), seed=0)
    for tell in net.module.tell:  # after three steps it hardly tells networks apart
        tell[2].weight.data *= 30
    return net


def told(net: WeightNet, zoo: Zoo) -> np.ndarray:
    return net.predict([(zoo, np.arange(len(zoo)))])


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_row_is_as_invariant_as_it_says(tmp_path, network, frame):
    zoo = zoo_of_networks(tmp_path / "zoo", NETWORKS[network], count=24, seed=0)
    config = replace(SMALL, **FRAMES[frame])
    net = fitted(config, tmp_path, zoo)
    before = told(net, zoo)
    assert before.std(0).min() > 1e-2, "what tells nothing is no test"
    other = "signs" if network == "tanh" else "scales"
    for symmetry in ("permutations", other):
        after = told(net, changed(tmp_path / symmetry, zoo, symmetry))
        apart = np.abs(after - before).max()
        if symmetry in config.invariances:
            assert apart < 1e-5, f"claims {symmetry}, and they change it"
        else:
            assert apart > 1e-4, f"does not claim {symmetry}, and they change nothing"


@pytest.mark.parametrize("frame", [name for name in FRAMES if name.count("sort, ") or "_" in name])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_frame_keeps_the_function(tmp_path, network, frame):
    zoo = zoo_of_networks(tmp_path / "zoo", NETWORKS[network], count=4, seed=0)
    frames = Frames(zoo, replace(SMALL, **FRAMES[frame]), onto_D=torch.from_numpy(zoo.read()[0]))
    rows = np.array([2, 1, 3])  # not the one that units are carried onto
    weights = frames.read(rows)
    assert torch.equal(frames.read(rows[[1]]), weights[[1]]), "found once, found again"
    module = build_network(NETWORKS[network]).eval()
    images = torch.randn(8, *zoo.input_shape, generator=torch.Generator().manual_seed(0))
    for row, weights_D in zip(rows, weights, strict=True):
        assert not torch.equal(weights_D, torch.from_numpy(zoo.read()[row]))
        logits = [
            torch.func.functional_call(module, zoo.layout.unflatten(one), (images,))
            for one in (weights_D, torch.from_numpy(zoo.read()[row]))
        ]
        torch.testing.assert_close(logits[0], logits[1], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("frame", ["norm_sort", "optimal_transport", "sets"])
@pytest.mark.parametrize(
    "network",
    [
        CifarResNetConfig(depth=8, width=4),
        DenseNetConfig(blocks=(2, 2), growth=4),
        ViTConfig(patch=16, width=12, depth=1, heads=2, mlp_ratio=1),
    ],
    ids=lambda network: network.kind,
)
def test_streams_heads_and_concatenations_are_units_too(tmp_path, network, frame):
    zoo = zoo_of_networks(tmp_path / "zoo", network, count=8, seed=0, data="cifar10")
    net = fitted(replace(SMALL, **FRAMES[frame]), tmp_path, zoo)
    before = told(net, zoo)
    after = told(net, changed(tmp_path / "moved", zoo, "permutations"))
    assert before.std(0).min() > 1e-3
    assert np.abs(after - before).max() < 1e-5


def test_parameters_are_as_many_as_counted_by_hand():
    """MLP 784-32-32-10 with the published sizes: d 256, 4 and 8 heads, 2 + 2 blocks, d_ff 1024."""
    layout = Layout.of(build_network(MLPConfig((784, 32, 32, 10))))
    published = WeightNetConfig(width=256, hidden=1024, heads=4, cross_heads=8)
    module = planned_module(
        published, [tokens_of(published, layout, groups=None)], num_properties=3
    )
    d, hidden = 256, 1024
    enter = sum((incoming + 1) * d + d for incoming in (784, 32, 32))  # weights and bias of a unit
    block = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * hidden + hidden + hidden * d + d)
    pooling = d + 2 * d + (2 * d * d + 2 * d) + (d * d + d)
    heads = 3 * (d * d + d + d + 1)
    parameters = list(module.parameters())
    assert all(parameter.is_meta for parameter in parameters)
    assert sum(map(torch.numel, parameters)) == enter + 3 * d + 4 * block + pooling + heads


def test_the_published_sizes_take_steps(tmp_path):
    zoo = zoo_of_networks(tmp_path / "zoo", MLP, count=8, seed=0)
    published = WeightNetConfig(
        training=FEW, width=256, hidden=1024, heads=4, cross_heads=8, dropout=0.1
    )
    net = WeightNet(published)
    found = net.fit(examples(zoo), examples(zoo), run=RunPart(tmp_path / "run"), seed=0)
    planned = planned_module(published, [net.tokens_of(zoo)], num_properties=2)
    assert found["parameters"] == sum(map(torch.numel, planned.parameters()))


def test_a_network_is_told_the_same_alone_and_beside_another_architecture(tmp_path):
    zoos = [zoo_of_networks(tmp_path / name, NETWORKS[name], count=8, seed=1) for name in NETWORKS]
    net = fitted(SMALL, tmp_path, *zoos)
    apart = np.concatenate([told(net, zoo) for zoo in zoos])
    with torch.no_grad():
        mixed = net.module(net.inputs([(zoo, np.arange(8)) for zoo in zoos]))
    mixed = mixed.double().numpy() * net.targets.std_P + net.targets.mean_P
    np.testing.assert_allclose(mixed, apart, atol=1e-6)


def test_it_is_told_what_a_masked_attention_is(tmp_path):
    """Blocks of tokens without a mask against attention of all to all under one, by hand."""
    zoo = zoo_of_networks(tmp_path / "zoo", TANH, count=8, seed=1)
    net = fitted(SMALL, tmp_path, zoo)
    block = net.module.within[0]
    lengths = [6, 5, 10]
    x_NTE = torch.randn(8, 21, 16, generator=torch.Generator().manual_seed(0))
    layer_T = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))
    with torch.no_grad():
        query, key, value = block.project(x_NTE).unflatten(2, (3, 2, 8)).unbind(2)
        scores = torch.einsum("nthe,nshe->nhts", query, key) / 8**0.5
        scores = scores.masked_fill(layer_T[:, None] != layer_T, -torch.inf)
        dense = torch.einsum("nhts,nshe->nthe", scores.softmax(-1), value).flatten(2)
        layers = [part.flatten(0, 1) for part in x_NTE.split(lengths, dim=1)]
        blocks = [(8, length) for length in lengths]
        found = block._attend(block.project(torch.cat(layers)), blocks)
        parts = found.split([8 * length for length in lengths])
        found = torch.cat([part.unflatten(0, (8, -1)) for part in parts], dim=1)
    torch.testing.assert_close(found, dense, rtol=1e-5, atol=1e-6)


def test_it_comes_back_from_its_file_and_says_where_it_looks(tmp_path):
    zoo = zoo_of_networks(tmp_path / "zoo", CNN, count=16, seed=0)
    training = replace(FEW, compute=replace(FEW.compute, kernel=ONEDNN))
    config = replace(SMALL, canonical="optimal_transport", targets="ranks", training=training)
    net = WeightNet(config)
    found = net.fit(examples(zoo), examples(zoo), run=RunPart(tmp_path / "run"), seed=0)
    shares = found["attention"]
    assert list(shares) == ["convs.0", "convs.1", "linears.0"] or len(shares) == 3
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    net.save(tmp_path)
    again = Predictor.load(tmp_path)
    assert kernel_of(again.module) == ONEDNN
    np.testing.assert_array_equal(told(again, zoo), told(net, zoo))


def test_an_unknown_layout_is_refused_or_taken_as_the_columns_say(tmp_path):
    zoos = [
        zoo_of_networks(tmp_path / str(width), MLPConfig((64, width, 10)), count=8, seed=0)
        for width in (12, 8, 16)
    ]
    ordered = fitted(SMALL, tmp_path / "ordered", zoos[0])
    told(ordered, zoos[1])  # narrower: padded
    with pytest.raises(
        ShapeMismatch, match=r"16 incoming weights .* at most 12.*columns to sorted"
    ):
        told(ordered, zoos[2])
    sets = fitted(replace(SMALL, columns="sorted", canonical="none"), tmp_path / "sets", zoos[0])
    assert np.isfinite(told(sets, zoos[2])).all()
    with pytest.raises(ShapeMismatch, match=r"3 layers, and those it learnt from at most 2"):
        told(sets, zoo_of_networks(tmp_path / "cnn", CNN, count=2, seed=0))
    carried = fitted(replace(SMALL, canonical="optimal_transport"), tmp_path / "carried", zoos[0])
    with pytest.raises(ShapeMismatch, match="set canonical to norm_sort"):
        told(carried, zoos[1])


def test_a_sequence_over_the_limit_is_refused(tmp_path):
    zoo = zoo_of_networks(tmp_path / "zoo", MLP, count=8, seed=0)
    with pytest.raises(
        ConfigError, match=r"are 22 tokens .* max_tokens = 21: .* set tokens to layer"
    ):
        fitted(replace(SMALL, max_tokens=21), tmp_path, zoo)
    fitted(replace(SMALL, max_tokens=22), tmp_path, zoo)
    with pytest.raises(ValueError, match="width = 16 is not a multiple of heads = 3"):
        replace(SMALL, heads=3)


@pytest.mark.parametrize("tokens", ["neuron", "global", "layer"])
def test_a_planted_property_is_learnt(tmp_path, tokens):
    """The mean magnitude of hidden weights, told of networks that were not learnt from."""
    zoos = [zoo_of_networks(tmp_path / str(seed), MLP, count=200, seed=seed) for seed in (0, 1)]
    start, stop = 64 * 12, 64 * 12 + 12 + 120  # biases and weights behind the hidden layer

    def known(zoo: Zoo) -> Examples:
        values_NP = np.abs(zoo.read(start=start, stop=stop)).mean(1, keepdims=True)
        return Examples([(zoo, np.arange(len(zoo)))], ("magnitude",), values_NP.astype(float))

    train, test = map(known, zoos)
    loop = LoopConfig(steps=150, batch_size=16, validate_every=50, learning_rate=3e-3)
    net = WeightNet(replace(SMALL, tokens=tokens, training=loop, positions=tokens == "global"))
    net.fit(train, test, run=RunPart(tmp_path / "run"), seed=0)
    errors = net.predict(test.sources) - test.values_NP
    assert np.square(errors).mean() < 0.5 * test.values_NP.var()
