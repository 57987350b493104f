"""The neurons codec: tokens against slices of weights, volume against the Jacobian's."""

import numpy as np
import pytest
import torch

from dwf.align.groups import random_orders
from dwf.align.symmetry import permute, symmetry_of
from dwf.codecs.codec import Codec
from dwf.codecs.config import NeuronsConfig
from dwf.codecs.neurons.codec import NeuronsCodec
from dwf.errors import ConfigError, TooFewNetworks
from dwf.networks.config import CNNConfig, VGGConfig
from dwf.zoo.store import write_zoo
from tests.codecs.test_neuron_layers import CHAINS
from tests.codecs.zoos import write_random_zoo

DEEP = (9, 5, 4, 3)


def fit(zoo, run, **settings) -> NeuronsCodec:
    sources = ([(zoo, zoo.rows(split="train"))], [(zoo, zoo.rows(split="val"))])
    return NeuronsCodec(NeuronsConfig(**settings)).fit(*sources, run=run)


def test_a_token_is_all_that_touches_its_unit(make_zoo, run):
    zoo = make_zoo(count=8, widths=DEEP)
    weights = torch.from_numpy(zoo.read())
    codes = fit(zoo, run, standardise="none").encode(weights, zoo.layout)
    state = zoo.layout.unflatten(weights)
    first, second, last = ([state[f"layers.{i}.{k}"] for k in ("weight", "bias")] for i in range(3))
    assert codes.values.shape == (8, 5 + 4 + 1, 10)
    assert codes.shape.sections == ((5, 10), (4, 9), (1, 3))
    for u in range(5):
        wanted = torch.cat([first[0][:, u], first[1][:, [u]]], 1)
        assert torch.equal(codes.values[:, u], wanted)
    for u in range(4):
        wanted = torch.cat([second[0][:, u], second[1][:, [u]], last[0][:, :, u]], 1)
        assert torch.equal(codes.values[:, 5 + u, :9], wanted)
    assert torch.equal(codes.values[:, 9, :3], last[1])
    assert codes.shape.positions.tolist()[3:7] == [[3, 0, 3], [4, 0, 4], [5, 1, 0], [6, 1, 1]]
    assert codes.shape.mask.sum() == codes.shape.size == zoo.layout.size
    assert not codes.values[:, ~codes.shape.mask].any()


@pytest.mark.parametrize("widths", [(64, 16, 10), DEEP, (4, 16, 3), (9, 5, 4, 6, 2, 3)])
@pytest.mark.parametrize("standardise", ["none", "per_feature", "per_weight"])
def test_round_trip_is_exact_to_float32_rounding(make_zoo, run, widths, standardise):
    zoo = make_zoo(widths=widths)
    codec = fit(zoo, run, standardise=standardise)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert not codes.values[:, ~codes.shape.mask].any()
    back = codec.decode(codes, zoo.layout)
    torch.testing.assert_close(back, weights, rtol=0, atol=2e-6)
    if standardise == "none":
        assert torch.equal(back, weights)


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("standardise", ["none", "per_feature", "per_weight"])
def test_convolutions_come_back_and_statistics_are_the_template(tmp_path, run, name, standardise):
    config = CHAINS[name]
    shape = getattr(config, "input", (1, 8, 8))
    zoo = write_random_zoo(tmp_path / "zoo", config, shape=shape, count=8)
    codec = fit(zoo, run, standardise=standardise)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert codes.shape.size == codec.shape.size == codec.num_covered == codes.flatten().shape[1]
    assert (
        codec.planned_shape(codec.config, [zoo.layout], num_train=8) == codes.shape == codec.shape
    )
    assert codec.facts["sections"] == [list(section) for section in codes.shape.sections]
    padding = codes.values[:, ~codes.shape.mask]
    assert not padding.any()
    padding[:] = torch.nan  # what a density may leave there
    codes.values[:, ~codes.shape.mask] = padding
    back = codec.decode(codes, zoo.layout)
    torch.testing.assert_close(
        zoo.layout.learnt(back), zoo.layout.learnt(weights), rtol=0, atol=2e-6
    )
    mean = weights[zoo.rows(split="train")].mean(0)
    for entry in zoo.layout.entries:
        if entry.role == "buffer":
            found = back[:, entry.offset : entry.stop]
            torch.testing.assert_close(found, mean[entry.offset : entry.stop].expand_as(found))


def test_an_exact_volume_of_weights_for_a_volume_of_codes(make_zoo, run):
    zoo = make_zoo(widths=(3, 2, 2))
    codec = fit(zoo, run)
    codes = codec.encode(torch.from_numpy(zoo.read(slice(0, 1))), zoo.layout)

    def decode(numbers_K):
        return codec.decode(codes.shape.fill(numbers_K[None]), zoo.layout)[0].double()

    at_K = codes.flatten()[0]
    steps = torch.eye(codes.shape.size)
    jacobian = torch.stack([decode(at_K + step) - decode(at_K) for step in steps])
    wanted = torch.linalg.slogdet(jacobian).logabsdet.item()
    assert codec.log_volume(zoo.layout) == pytest.approx(wanted, abs=1e-4)
    assert fit(zoo, run, standardise="none").log_volume(zoo.layout) == 0


def test_features_are_standardised_over_units_and_training_networks(make_zoo, run):
    zoo = make_zoo(count=30, widths=DEEP)
    weights = torch.from_numpy(zoo.read())
    plain = fit(zoo, run, standardise="none").encode(weights, zoo.layout).values.double()
    codes = fit(zoo, run).encode(weights, zoo.layout).values.double()
    train = zoo.rows(split="train")
    for tokens, width in ((slice(0, 5), 10), (slice(5, 9), 9), (slice(9, 10), 3)):
        for c in range(width):
            seen = plain[train, tokens, c]
            wanted = (plain[:, tokens, c] - seen.mean()) / seen.std(correction=0)
            torch.testing.assert_close(codes[:, tokens, c], wanted, rtol=1e-4, atol=1e-5)
    each = fit(zoo, run, standardise="per_weight").encode(weights[train], zoo.layout)
    real = each.flatten().double()
    torch.testing.assert_close(real.std(0, correction=0), torch.ones(real.shape[1]).double())


def test_units_of_the_last_hidden_layer_reorder_as_tokens(make_zoo, run):
    zoo = make_zoo(widths=DEEP)
    codec, groups = (
        fit(zoo, run),
        symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape),
    )
    weights = torch.from_numpy(zoo.read())
    order = torch.tensor([2, 0, 3, 1])
    orders = [torch.arange(5).repeat(12, 1), order.repeat(12, 1)]
    moved = codec.encode(
        permute(weights, zoo.layout, groups=groups, orders=orders), zoo.layout
    ).values
    wanted = codec.encode(weights, zoo.layout).values
    wanted[:, 5:9] = wanted[:, 5:9][:, order]
    assert torch.equal(moved, wanted)


def test_loaded_codec_is_the_saved_one_bit_for_bit(make_zoo, run, tmp_path):
    zoo = make_zoo()
    codec = fit(zoo, run)
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    codes = codec.encode(torch.from_numpy(zoo.read()), zoo.layout)
    again = loaded.encode_zoo([(zoo, np.arange(12))])
    assert torch.equal(again.values, codes.values) and torch.equal(
        again.shape.mask, codes.shape.mask
    )
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))
    assert loaded.facts == codec.facts


def test_units_of_zeros_and_weights_that_never_vary(make_zoo, tmp_path, run):
    varied = make_zoo()
    weights = varied.read()
    state = varied.layout.unflatten(torch.from_numpy(weights))
    state["layers.0.weight"][:, 3] = state["layers.0.bias"][:, 3] = 0.0
    state["layers.0.weight"][:, :, 7] = 0.25
    columns = {name: values for name, values in varied.columns.items() if name != "checksum"}
    zoo = write_zoo(tmp_path / "zeros", varied.facts, num_rows=12, blocks=[(columns, weights)])
    codec = fit(zoo, run)
    codes = codec.encode(torch.from_numpy(weights), zoo.layout)
    assert codes.values.isfinite().all()
    back = codec.decode(codes, zoo.layout)
    torch.testing.assert_close(back, torch.from_numpy(weights), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "config",
    [
        CNNConfig((4, 5), (1, 8, 8), norm="batch", head="average"),
        CNNConfig((4, 5), (1, 8, 8)),  # a filter's columns are a block
        CNNConfig((4, 5), (1, 8, 8), hidden=(6,)),
    ],
    ids=["average", "flatten", "hidden"],
)
def test_filters_and_units_of_the_last_hidden_layer_reorder_as_tokens(tmp_path, run, config):
    zoo = write_random_zoo(tmp_path / "zoo", config, shape=(1, 8, 8))
    codec, groups = (
        fit(zoo, run),
        symmetry_of(zoo.build_network(), zoo.layout, input_shape=(1, 8, 8)),
    )
    weights = torch.from_numpy(zoo.read())
    orders = random_orders(groups, len(weights), seed=1)
    for order_NU in orders[:-1]:
        order_NU[:] = torch.arange(order_NU.shape[1])
    moved = codec.encode(
        permute(weights, zoo.layout, groups=groups, orders=orders), zoo.layout
    ).values
    wanted = codec.encode(weights, zoo.layout).values
    first = sum(order_NU.shape[1] for order_NU in orders[:-1])
    for n, order_U in enumerate(orders[-1]):
        wanted[n, first : first + len(order_U)] = wanted[n, first + order_U]
    assert torch.equal(moved, wanted)


def test_an_earlier_layers_order_is_that_of_numbers_within_the_next(make_zoo, run):
    """What relies on alignment, as the codec's docstring says."""
    zoo = make_zoo(widths=DEEP)
    codec, groups = (
        fit(zoo, run),
        symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape),
    )
    weights = torch.from_numpy(zoo.read())
    orders = [torch.tensor([2, 0, 4, 1, 3]).repeat(12, 1), torch.arange(4).repeat(12, 1)]
    moved = codec.encode(
        permute(weights, zoo.layout, groups=groups, orders=orders), zoo.layout
    ).values
    codes = codec.encode(weights, zoo.layout).values
    assert torch.equal(moved[:, :5], codes[:, orders[0][0]])
    assert not torch.equal(moved[:, 5:9].sort(1).values, codes[:, 5:9].sort(1).values)


def test_a_unit_of_zeros_in_all_networks_is_refused_by_name(make_zoo, tmp_path, run):
    varied = make_zoo(widths=DEEP)
    weights = varied.read()
    state = varied.layout.unflatten(torch.from_numpy(weights))
    columns = {name: values for name, values in varied.columns.items() if name != "checksum"}
    state["layers.1.weight"][:, 2] = state["layers.1.bias"][:, 2] = 0.0
    zoo = write_zoo(tmp_path / "dead", varied.facts, num_rows=12, blocks=[(columns, weights)])
    fit(zoo, run)  # its outgoing weights are there
    state["layers.2.weight"][:, :, 2] = 0.0
    zoo = write_zoo(tmp_path / "zeros", varied.facts, num_rows=12, blocks=[(columns, weights)])
    for scale in ("kept", "balanced", "logarithm"):
        with pytest.raises(ConfigError, match=r"unit 2 of layers.1.weight .1 of 4. is zero in all"):
            fit(zoo, run, scale=scale)


def test_a_zoo_without_networks_and_one_without_chains(make_zoo, tmp_path, run):
    zoo = make_zoo()
    with pytest.raises(TooFewNetworks, match="0 networks to learn from"):
        NeuronsCodec(NeuronsConfig()).fit([(zoo, zoo.rows()[:0])], [], run=run)
    no_chain = write_random_zoo(
        tmp_path / "grouped", CNNConfig((4, 4), (1, 8, 8), groups=(1, 2)), shape=(1, 8, 8)
    )
    with pytest.raises(ConfigError, match=r"tokens of convs.1.weight .*tokens or sane"):
        fit(no_chain, run)


@pytest.mark.slow
def test_a_large_chain(tmp_path, run):
    zoo = write_random_zoo(tmp_path / "vgg", VGGConfig(width=8), shape=(3, 32, 32), count=6)
    weights = torch.from_numpy(zoo.read())
    for scale in ("kept", "logarithm"):
        codec = fit(zoo, run, scale=scale)
        back = codec.decode(codec.encode(weights, zoo.layout), zoo.layout)
        difference = zoo.layout.learnt(back) - zoo.layout.learnt(weights)
        assert difference.abs().max() < 5e-6
