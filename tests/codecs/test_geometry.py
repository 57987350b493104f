"""Geometry against the published counts, and against a plain loop over channels."""

import logging
import math

import pytest
import torch

from dwf.codecs.config import SaneTokensConfig, TokenSettings
from dwf.codecs.tokens.geometry import Geometry, best_size
from dwf.errors import ConfigError, ShapeMismatch
from dwf.networks.config import CNNConfig, MLPConfig, ResNetConfig, ViTConfig
from dwf.zoo.layout import Entry, Layout
from tests.codecs.zoos import ARCHITECTURES, CNN3, Unusual, layout_of

SMALL = CNNConfig((8, 6, 4), (1, 28, 28), kernels=(5, 5, 2), pools=(2, 2, 0), hidden=(20,))
"""The published CNN of 2,464 numbers."""
WITH_NORMS = {"norms": True, "buffers": True}


@pytest.mark.parametrize(
    ("config", "size", "settings", "tokens", "numbers", "used"),
    [
        (SMALL, 201, {}, 48, 2_464, 0.255),
        (CNN3, 289, {}, 93, 10_853, 0.404),
        (ResNetConfig(), 288, {"norms": False}, 39_124, 11_164_362, 0.991),
        (ResNetConfig(), 288, WITH_NORMS, 53_524, None, 0.726),
        (ResNetConfig(classes=100), 288, WITH_NORMS, 53_704, None, 0.726),
        (ResNetConfig(34, classes=100), 288, WITH_NORMS, 99_912, None, 0.742),
        (ResNetConfig(50, classes=100), 288, WITH_NORMS, 169_056, None, 0.488),
    ],
)
def test_published_counts(config, size, settings, tokens, numbers, used):
    geometry = Geometry.of(layout_of(config), TokenSettings(size, **settings))
    assert (geometry.num_tokens, geometry.size) == (tokens, size)
    assert round(geometry.used, 3) == used
    if numbers is not None:
        assert geometry.num_numbers == numbers


def slow_tokens(state, pairs, size, packing):
    """Tokens of one network by a loop over channels: (tokens_TC, mask_TC, positions)."""
    tokens, mask, positions = [], [], []
    for layer, (weight, bias) in enumerate(pairs):
        rows = state[weight].flatten(1) if state[weight].dim() > 1 else state[weight][:, None]
        if bias:
            rows = torch.cat([rows, state[bias][:, None]], 1)
        streams = rows if packing == "rows" else [rows.flatten()]
        for unit, stream in enumerate(streams):
            for number, piece in enumerate(stream.split(size)):
                padding = torch.zeros(size - len(piece))
                tokens.append(torch.cat([piece, padding]))
                mask.append(torch.arange(size) < len(piece))
                unit_there = unit if packing == "rows" else number
                positions.append((len(positions), layer, unit_there))
    return torch.stack(tokens), torch.stack(mask), torch.tensor(positions)


def pairs_of(layout, skip=()):
    """(weight, bias) of each layer that is named as PyTorch names them."""
    names = [entry.name for entry in layout.entries if entry.role not in skip]
    biases = {name: name.removesuffix("weight") + "bias" for name in names if "weight" in name}
    return [
        (name, biases[name] if biases.get(name) in names else None)
        for name in names
        if not name.endswith("bias")
    ]


@pytest.mark.parametrize("packing", ["rows", "dense"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "grouped", "resnet", "densenet"])
def test_tokens_are_those_of_a_loop_over_channels(name, packing):
    layout = layout_of(ARCHITECTURES[name][0])
    weights_ND = torch.randn(2, layout.size, generator=torch.Generator().manual_seed(0))
    for norms, buffers in ((True, False), (False, False), (True, True)):
        skip = {role for role, kept in (("norm", norms), ("buffer", buffers)) if not kept}
        for size in (1, 7, 30):
            geometry = Geometry.of(
                layout, TokenSettings(size, packing, norms=norms, buffers=buffers)
            )
            found = geometry.tokenise(weights_ND)
            for n in range(2):
                state = layout.unflatten(weights_ND[n])
                wanted = slow_tokens(state, pairs_of(layout, skip), size=size, packing=packing)
                assert torch.equal(found[n], wanted[0])
            assert torch.equal(geometry.mask_TC, wanted[1])
            assert torch.equal(geometry.positions_T3, wanted[2])
            assert torch.equal(geometry.layer_of_token_T, wanted[2][:, 1])
            assert geometry.num_numbers == wanted[1].sum() == sum(b - a for a, b in geometry.spans)
            assert skip != {"buffer"} or geometry.spans == layout.spans()


@pytest.mark.parametrize("packing", ["rows", "dense"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_round_trip_is_exact_and_leaves_the_rest(name, packing):
    layout = layout_of(ARCHITECTURES[name][0])
    weights_ND = torch.randn(3, layout.size)
    for size, norms in ((None, True), (13, True), (5, False)):
        geometry = Geometry.of(layout, TokenSettings(size, packing, norms=norms))
        tokens_NTC = geometry.tokenise(weights_ND)
        assert not tokens_NTC[:, ~geometry.mask_TC].any()
        tokens_NTC[:, ~geometry.mask_TC] = torch.nan  # nobody looks at padding
        back_ND = torch.full_like(weights_ND, -7.0)
        geometry.detokenise(tokens_NTC, back_ND)
        covered = torch.zeros(layout.size, dtype=torch.bool)
        for start, stop in geometry.spans:
            covered[start:stop] = True
        assert torch.equal(back_ND[:, covered], weights_ND[:, covered])
        assert (back_ND[:, ~covered] == -7).all()
        out = torch.full_like(tokens_NTC, torch.nan)
        assert geometry.tokenise(weights_ND, out) is out
        assert torch.equal(out, geometry.tokenise(weights_ND))
    roles = {"norm", "buffer"} & {entry.role for entry in layout.entries}
    assert covered.all() == (not roles)


@pytest.mark.parametrize("packing", ["rows", "dense"])
def test_offsets_are_where_the_numbers_lie(packing):
    layout = layout_of(ARCHITECTURES["vit"][0])
    places_1D = torch.arange(1.0, layout.size + 1)[None]
    geometry = Geometry.of(layout, TokenSettings(10, packing))
    wanted_TC = geometry.tokenise(places_1D)[0].long() - 1
    assert torch.equal(geometry.offsets(0, geometry.num_tokens), wanted_TC)
    for start, stop in ((0, 1), (3, 60), (59, 59), (100, geometry.num_tokens)):
        assert torch.equal(geometry.offsets(start, stop), wanted_TC[start:stop])


def test_what_is_no_layers_weight_is_a_layer_of_its_own():
    layout = Layout.of(Unusual())
    layers = {layer.name: layer for layer in Geometry.of(layout, TokenSettings(5)).layers}
    shapes = {name: (layer.rows, layer.columns) for name, layer in layers.items()}
    assert shapes == {
        "temperature": (1, 1),
        "shift": (1, 5),  # as a class token: one row
        "places": (3, 5),  # as a position embedding: one for each place
        "lone_bias": (4, 1),
        "one.weight": (1, 8),  # one channel, its first axis of size 1
        "attention.in_proj_weight": (12, 5),
        "attention.out_proj.weight": (4, 5),
        "norm.weight": (3, 4),  # normalises two axes: its bias is no column
        "norm.bias": (3, 4),
    }
    assert sum(layer.numbers for layer in layers.values()) == layout.size


def test_a_bias_before_its_weight_is_its_column():
    entries = (
        Entry("0.bias", (2,), offset=0, role="bias"),
        Entry("0.weight", (2, 3), offset=2, role="weight"),
    )
    geometry = Geometry.of(Layout(entries), TokenSettings(4))
    assert geometry.offsets(0, 2).tolist() == [[2, 3, 4, 0], [5, 6, 7, 1]]
    assert geometry.spans == [(0, 8)]


@pytest.mark.parametrize("packing", ["rows", "dense"])
@pytest.mark.parametrize("config", [CNN3, MLPConfig((784, 32, 32, 10)), ViTConfig(width=48)])
def test_the_best_size_costs_least(config, packing):
    layout = layout_of(config)

    def cost(size):
        geometry = Geometry.of(layout, TokenSettings(size, packing))
        return geometry.num_tokens * (size + 32)

    best = best_size([layout], TokenSettings(packing=packing))
    assert Geometry.of(layout, TokenSettings(None, packing)).size == best
    longest = Geometry.of(layout, TokenSettings(1, packing)).longest_row
    assert cost(best) == min(cost(size) for size in range(1, min(longest, 288) + 1))
    assert best_size([layout_of(ResNetConfig())], TokenSettings(norms=False)) == 288  # as published


def test_several_architectures_share_a_size(caplog):
    small, large = layout_of(SMALL), layout_of(ResNetConfig())
    geometries = Geometry.common([small, large], TokenSettings())
    assert geometries[0].size == geometries[1].size == best_size([small, large], TokenSettings())
    with caplog.at_level(logging.WARNING):  # longer than any row of the one, not of the other
        wide = Geometry.common([small, large], TokenSettings(288))
        assert [each.size for each in wide] == [288, 288]
    with pytest.raises(ConfigError, match="longest row of these networks has 4608 numbers"):
        Geometry.common([small, large], TokenSettings(4609))


def test_a_size_that_pads_more_than_it_holds_is_warned_of(caplog):
    layout = layout_of(SMALL)
    best = best_size([layout], TokenSettings())
    with caplog.at_level(logging.WARNING):
        Geometry.common([layout], TokenSettings(201))
    used = Geometry.of(layout, TokenSettings(best)).used
    better = f"codec.size = {best} fills {100 * used:.1f} %"
    assert "codec.size = 201: 25.5 % of the slots hold a weight" in caplog.text
    assert better in caplog.text and best < 201
    assert len(caplog.records) == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING):  # once for these networks and settings
        Geometry.common([layout], TokenSettings(201))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        Geometry.common([layout], TokenSettings(201, norms=False))
    assert len(caplog.records) == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        Geometry.common([layout], TokenSettings(best))
        Geometry.common([layout], TokenSettings())
        Geometry.common([layout], TokenSettings(201, "dense"))
        Geometry.common([layout_of(ResNetConfig())], TokenSettings(288))
    assert not caplog.records


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_below_one_is_refused_where_settings_are_made(size):
    for made in (TokenSettings, SaneTokensConfig):
        with pytest.raises(ConfigError, match=rf"size = {size}: allowed is at least 1"):
            made(size)


def test_a_size_longer_than_any_row_is_refused():
    with pytest.raises(ConfigError, match=r"size = 290: the longest row .* 289 .*at most 289"):
        Geometry.common([layout_of(CNN3)], TokenSettings(290))
    with pytest.raises(ConfigError, match=r"the longest layer of these networks has 4640 numbers"):
        Geometry.common([layout_of(CNN3)], TokenSettings(4641, "dense"))


def test_a_layout_of_nothing_is_refused():
    norm = Layout(
        (
            Entry("weight", (4,), offset=0, role="norm"),
            Entry("running_mean", (4,), offset=4, role="buffer"),
        )
    )
    with pytest.raises(ConfigError, match=r"no number to make tokens of, of 8 .*codec\.norms"):
        Geometry.of(norm, TokenSettings(norms=False))
    assert Geometry.of(norm, TokenSettings()).num_numbers == 4


def test_tokens_and_rows_of_another_geometry_are_refused():
    layout = layout_of(CNN3)
    geometry = Geometry.of(layout, TokenSettings(73))
    with pytest.raises(ShapeMismatch, match=rf"shape \[2, 99\] .* rows of {layout.size}"):
        geometry.tokenise(torch.zeros(2, 99))
    tokens_NTC = Geometry.of(layout, TokenSettings(289)).tokenise(torch.zeros(2, layout.size))
    with pytest.raises(ShapeMismatch, match=r"\[2, 93, 289\], expected \[2, 170, 73\]"):
        geometry.detokenise(tokens_NTC, torch.zeros(2, layout.size))


def test_the_same_geometry_is_kept():
    layout = layout_of(CNN3)
    again = Layout.from_json(layout.to_json())
    assert Geometry.of(layout, TokenSettings(73)) is Geometry.of(again, TokenSettings(73))
    assert Geometry.of(layout, TokenSettings(73)) is not Geometry.of(
        layout, TokenSettings(73, "dense")
    )
    assert math.isclose(Geometry.of(layout, TokenSettings(73)).used, 10_853 / (170 * 73))
