import numpy as np
import pytest
import torch
from torch import nn

from dwf.align.symmetry import permute, symmetry_of
from dwf.codecs.codec import Codec
from dwf.codecs.config import NeuronsConfig
from dwf.codecs.neurons import NeuronsCodec, layer_places
from dwf.errors import ConfigError
from dwf.zoo.layout import Layout
from dwf.zoo.store import write_zoo

DEEP = (9, 5, 4, 3)


def fit(zoo, run, **settings) -> NeuronsCodec:
    sources = ([(zoo, zoo.rows(split="train"))], [(zoo, zoo.rows(split="val"))])
    return NeuronsCodec(NeuronsConfig(**settings)).fit(*sources, run)


def test_a_token_is_all_that_touches_its_unit(make_zoo, run):
    zoo = make_zoo(count=8, widths=DEEP)
    weights = torch.from_numpy(zoo.read())
    codes = fit(zoo, run, standardise="none").encode(weights, zoo.layout)
    state = zoo.layout.unflatten(weights)
    first, second, last = ([state[f"layers.{i}.{k}"] for k in ("weight", "bias")] for i in range(3))
    assert codes.values.shape == (8, 5 + 4 + 1, 10)
    assert codes.groups == ((5, 10), (4, 9), (1, 3))
    for u in range(5):
        wanted = torch.cat([first[0][:, u], first[1][:, [u]]], 1)
        assert torch.equal(codes.values[:, u], wanted)
    for u in range(4):
        wanted = torch.cat([second[0][:, u], second[1][:, [u]], last[0][:, :, u]], 1)
        assert torch.equal(codes.values[:, 5 + u, :9], wanted)
    assert torch.equal(codes.values[:, 9, :3], last[1])
    assert codes.positions.tolist()[3:7] == [[3, 0, 3], [4, 0, 4], [5, 1, 0], [6, 1, 1]]
    assert codes.mask.sum() == codes.size == zoo.layout.size
    assert not codes.values[:, ~codes.mask].any()


@pytest.mark.parametrize("widths", [(64, 16, 10), DEEP, (4, 16, 3)])
@pytest.mark.parametrize("standardise", ["none", "per_feature", "per_weight"])
def test_round_trip_is_exact_to_float32_rounding(make_zoo, run, widths, standardise):
    zoo = make_zoo(widths=widths)
    codec = fit(zoo, run, standardise=standardise)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert not codes.values[:, ~codes.mask].any()
    back = codec.decode(codes, zoo.layout)
    torch.testing.assert_close(back, weights, rtol=0, atol=2e-6)
    if standardise == "none":
        assert torch.equal(back, weights)


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
    codec, groups = fit(zoo, run), symmetry_of(zoo.build_network(), zoo.layout)
    weights = torch.from_numpy(zoo.read())
    order = torch.tensor([2, 0, 3, 1])
    orders = [torch.arange(5).repeat(12, 1), order.repeat(12, 1)]
    moved = codec.encode(permute(weights, zoo.layout, groups, orders), zoo.layout).values
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
    assert torch.equal(again.values, codes.values) and torch.equal(again.mask, codes.mask)
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))
    assert loaded.facts == codec.facts


def test_units_of_zeros_and_weights_that_never_vary(make_zoo, tmp_path, run):
    varied = make_zoo()
    weights = varied.read()
    state = varied.layout.unflatten(torch.from_numpy(weights))
    state["layers.0.weight"][:, 3] = state["layers.0.bias"][:, 3] = 0.0
    state["layers.0.weight"][:, :, 7] = 0.25
    columns = {name: values for name, values in varied.columns.items() if name != "checksum"}
    zoo = write_zoo(tmp_path / "zeros", varied.layout, 12, [(columns, weights)], seed=0)
    codec = fit(zoo, run)
    codes = codec.encode(torch.from_numpy(weights), zoo.layout)
    assert codes.values.isfinite().all()
    back = codec.decode(codes, zoo.layout)
    torch.testing.assert_close(back, torch.from_numpy(weights), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (nn.Sequential(nn.Linear(9, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)), "1.weight .norm"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(4, 2)), "0.weight .weight, shape .4, 1, 3, 3"),
        (nn.Sequential(nn.Linear(9, 6, bias=False), nn.Linear(6, 4)), "1.weight .weight"),
        (nn.Sequential(nn.Linear(9, 6), nn.Linear(5, 4)), "1.weight .weight, shape .4, 5"),
        (nn.Sequential(nn.Linear(9, 6), nn.Linear(6, 4, bias=False)), "1.weight .weight"),
        (nn.Linear(9, 6), "bias .bias, shape .6"),
    ],
)
def test_names_the_tensor_it_has_no_token_for(network, named):
    with pytest.raises(ConfigError, match=rf"cannot make tokens of {named}.*flat or pca"):
        layer_places(Layout.of(network))
