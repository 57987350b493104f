"""The tokens codec: codes against the geometry's tokens, scaled in float64, and back exactly."""

import logging

import numpy as np
import pytest
import torch

from dwf.codecs.codec import Codec
from dwf.codecs.config import TokensConfig, TokenSettings
from dwf.codecs.tokens.codec import TokensCodec
from dwf.codecs.tokens.geometry import Geometry
from dwf.errors import ConfigError, ShapeMismatch
from tests.codecs.zoos import ARCHITECTURES, layout_of, write_random_zoo


@pytest.fixture
def zoo_of(tmp_path):
    return lambda name: write_random_zoo(tmp_path / name, *ARCHITECTURES[name], count=10)


def fit(zoo, run, **settings) -> TokensCodec:
    sources = ([(zoo, zoo.rows(split="train"))], [(zoo, zoo.rows(split="val"))])
    return TokensCodec(TokensConfig(**settings)).fit(*sources, run=run)


@pytest.mark.parametrize("packing", ["rows", "dense"])
@pytest.mark.parametrize("standardise", ["none", "per_layer", "min_max"])
@pytest.mark.parametrize("name", ["mlp", "resnet", "vit"])
def test_round_trip_is_exact(zoo_of, run, name, standardise, packing):
    zoo = zoo_of(name)
    codec = fit(zoo, run, standardise=standardise, packing=packing)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert codes.values.dtype == torch.float32 and not codes.values[:, ~codes.shape.mask].any()
    assert (
        codes.shape.size
        == codec.shape.size
        == codec.num_covered
        == zoo.layout.learnt(weights).shape[1]
    )
    codes.values[:, ~codes.shape.mask] = torch.nan  # what a density leaves in padding
    back = codec.decode(codes, zoo.layout)
    own, wanted = zoo.layout.learnt(back), zoo.layout.learnt(weights)
    torch.testing.assert_close(own, wanted, rtol=0, atol=2e-6)
    if standardise == "none":
        assert torch.equal(own, wanted)
    for entry in zoo.layout.entries:
        if entry.role == "buffer":  # of the mean training network
            mean = zoo.read(zoo.rows(split="train"))[:, entry.offset : entry.stop].mean(0)
            found = back[:, entry.offset : entry.stop].numpy()
            np.testing.assert_allclose(found, np.broadcast_to(mean, found.shape), atol=1e-6)


def test_codes_are_the_geometrys_tokens(zoo_of, run):
    zoo = zoo_of("resnet")
    settings = {"size": 12, "packing": "rows", "norms": False, "standardise": "per_layer"}
    codec = fit(zoo, run, **settings)
    geometry = Geometry.of(zoo.layout, TokenSettings(12, norms=False))
    codes = codec.encode(torch.from_numpy(zoo.read()), zoo.layout)
    tokens = geometry.tokenise(torch.from_numpy(zoo.read()))
    both = (codec.scaling.shift_L, codec.scaling.scale_L)
    shift_T, scale_T = (torch.from_numpy(each)[geometry.layer_of_token_T] for each in both)
    wanted = (tokens.double() - shift_T[:, None]) / scale_T[:, None]
    torch.testing.assert_close(
        codes.values, torch.where(geometry.mask_TC, wanted, 0).float(), rtol=1e-5, atol=1e-6
    )
    assert torch.equal(codes.shape.positions, geometry.positions_T3)
    assert torch.equal(codes.shape.mask, geometry.mask_TC)
    config = TokensConfig(**settings)
    assert (
        TokensCodec.planned_shape(config, [zoo.layout], num_train=8) == codes.shape == codec.shape
    )
    assert (
        sum(count for count, _ in codes.shape.sections)
        == geometry.num_tokens
        == codec.facts["tokens"]
    )
    assert sum(count * width for count, width in codes.shape.sections) == codes.shape.size
    assert torch.equal(codes.shape.fill(codes.flatten()).values, codes.values)


@pytest.mark.parametrize("packing", ["rows", "dense"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_layer_is_few_groups_however_its_rows_are_cut(name, packing):
    """A backbone has two linear maps for each section."""
    layout = layout_of(ARCHITECTURES[name][0])
    for size in (7, 30):
        geometry = Geometry.of(layout, TokenSettings(size, packing))
        sections = TokensCodec.planned_shape(
            TokensConfig(size, packing), [layout], num_train=1
        ).sections
        assert len(sections) <= 2 * len(geometry.layers) < geometry.num_tokens
        assert sum(count for count, _ in sections) == geometry.num_tokens
        assert sum(count * width for count, width in sections) == geometry.num_numbers


def test_running_statistics_are_covered_if_asked(zoo_of, run):
    zoo = zoo_of("resnet")
    weights = torch.from_numpy(zoo.read())
    codec = fit(zoo, run, buffers=True, standardise="none")
    assert codec.spans == [(0, zoo.layout.size)]
    assert torch.equal(codec.decode(codec.encode(weights, zoo.layout), zoo.layout), weights)


def test_loaded_codec_is_the_saved_one_bit_for_bit(zoo_of, run, tmp_path, monkeypatch):
    zoo = zoo_of("cnn")
    codec = fit(zoo, run, packing="dense")
    codec.save(tmp_path / "codec")
    # What is best may change; what was fitted does not.
    monkeypatch.setattr("dwf.codecs.tokens.codec.Geometry.common", None)
    loaded = Codec.load(tmp_path / "codec")
    codes = codec.encode(torch.from_numpy(zoo.read()), zoo.layout)
    again = loaded.encode_zoo([(zoo, np.arange(10))])
    assert torch.equal(again.values, codes.values) and torch.equal(
        again.shape.mask, codes.shape.mask
    )
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))
    assert loaded.facts == codec.facts


def test_sizes_and_networks_that_do_not_fit(zoo_of, run, caplog):
    zoo, other = zoo_of("cnn"), zoo_of("mlp")
    with pytest.raises(ConfigError, match=r"codec.size = 999: the longest row"):
        fit(zoo, run, size=999)
    with caplog.at_level(logging.WARNING):
        TokensCodec.planned_shape(TokensConfig(size=289), [zoo.layout], num_train=1)
    assert "of the slots hold a weight" in caplog.text
    codec = fit(zoo, run)
    with pytest.raises(ShapeMismatch, match=f"{other.layout.digest}.*{zoo.layout.digest}"):
        codec.encode(torch.from_numpy(other.read()), other.layout)


def test_what_it_covers_of_a_layout_is_what_its_geometry_covers(zoo_of, run):
    zoo = zoo_of("resnet")
    codec = fit(zoo, run, norms=False)
    assert codec.spans_of(zoo.layout) == codec.spans != zoo.layout.spans()
    with pytest.raises(ShapeMismatch, match="this codec was fitted to"):
        codec.spans_of(layout_of(ARCHITECTURES["mlp"][0]))
