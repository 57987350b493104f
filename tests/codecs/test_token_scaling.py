"""Scaling against the statistics of all numbers of a layer at once, in float64."""

from functools import partial

import numpy as np
import pytest
import torch

from dwf.codecs.config import TokenSettings
from dwf.codecs.tokens.geometry import Geometry
from dwf.codecs.tokens.scaling import TokenScaling
from dwf.errors import CorruptShard, ShapeMismatch, TooFewNetworks
from dwf.zoo.moments import measure_moments, parts_of
from dwf.zoo.store import write_zoo
from tests.codecs.zoos import ARCHITECTURES, write_random_zoo


@pytest.fixture
def shifted(tmp_path):
    """A zoo of ResNets whose layers differ in mean and deviation."""
    zoo = write_random_zoo(tmp_path / "plain", *ARCHITECTURES["resnet"], count=9)
    weights, rng = zoo.read(), np.random.default_rng(1)
    for entry in zoo.layout.entries:
        part = weights[:, entry.offset : entry.stop]
        part *= rng.uniform(0.1, 3)
        part += rng.standard_normal() * 10
        part += rng.standard_normal((9, 1))  # networks differ too
    columns = {name: each for name, each in zoo.columns.items() if name != "checksum"}
    return write_zoo(tmp_path / "shifted", zoo.facts, num_rows=9, blocks=[(columns, weights)])


def numbers_of(weights_ND, layer):
    entries = [layer.weight] + [layer.bias] * (layer.bias is not None)
    return np.concatenate([weights_ND[:, e.offset : e.stop].ravel() for e in entries])


@pytest.mark.parametrize("packing", ["rows", "dense"])
def test_layers_have_mean_0_and_deviation_1_over_training_networks(shifted, packing):
    rows, geometry = (
        np.array([0, 2, 3, 7]),
        Geometry.of(shifted.layout, TokenSettings(11, packing, buffers=True)),
    )
    weights_ND = shifted.read(rows).astype(np.float64)
    scaling = TokenScaling.fit([(shifted, rows)], geometry, kind="per_layer")
    assert scaling.shift_L.dtype == scaling.scale_L.dtype == np.float32
    for layer, shift, scale in zip(geometry.layers, scaling.shift_L, scaling.scale_L, strict=True):
        numbers = numbers_of(weights_ND, layer)
        assert shift == pytest.approx(numbers.mean(), rel=1e-6)
        assert scale == pytest.approx(numbers.std(), rel=1e-6)
    tokens = geometry.tokenise(torch.from_numpy(shifted.read(rows)))
    mask, layer_T = geometry.mask_TC, geometry.layer_of_token_T
    scaled = scaling.apply(tokens, layer_T, mask_TC=mask)
    assert not scaled[:, ~mask].any()
    real = scaled[:, mask].double()
    assert abs(real.mean()) < 1e-5 and abs(real.std(correction=0) - 1) < 1e-5


def test_moments_that_are_known_give_the_same(shifted):
    rows, geometry = np.arange(5), Geometry.of(shifted.layout, TokenSettings(11))
    moments = measure_moments([(shifted, rows)])
    given = TokenScaling.fit([(shifted, rows)], geometry, kind="per_layer", moments=moments)
    found = TokenScaling.fit([(shifted, rows)], geometry, kind="per_layer")
    assert np.array_equal(given.shift_L, found.shift_L)
    assert np.array_equal(given.scale_L, found.scale_L)


def test_min_max_is_minus_1_to_1_over_training_networks(shifted, monkeypatch):
    rows, geometry = np.array([1, 4, 5, 8]), Geometry.of(shifted.layout, TokenSettings(11))
    by_twos = partial(parts_of, max_bytes=8 * shifted.layout.size)
    monkeypatch.setattr("dwf.codecs.tokens.scaling.parts_of", by_twos)
    scaling = TokenScaling.fit([(shifted, rows[:1]), (shifted, rows[1:])], geometry, kind="min_max")
    tokens = geometry.tokenise(torch.from_numpy(shifted.read(rows)))
    scaled = scaling.apply(tokens, geometry.layer_of_token_T, mask_TC=geometry.mask_TC)
    for number in range(len(geometry.layers)):
        here = geometry.layer_of_token_T == number
        real = scaled[:, here][:, geometry.mask_TC[here]]
        assert real.min() == pytest.approx(-1, abs=1e-5)
        assert real.max() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["none", "per_layer", "min_max", "run_time"])
def test_undo_is_the_inverse_up_to_rounding(shifted, kind):
    geometry = Geometry.of(shifted.layout, TokenSettings(11))
    scaling = TokenScaling.fit([(shifted, np.arange(9))], geometry, kind=kind)
    assert scaling.changes == (kind in ("per_layer", "min_max"))
    tokens = geometry.tokenise(torch.from_numpy(shifted.read()))
    layer_T, mask = geometry.layer_of_token_T, geometry.mask_TC
    scaled = scaling.apply(tokens, layer_T, mask_TC=mask)
    back = scaling.undo(scaled, layer_T, mask_TC=mask)
    if kind in ("none", "run_time"):
        assert torch.equal(scaled, tokens)
    assert not back[:, ~mask].any()
    torch.testing.assert_close(back, tokens, rtol=3e-7, atol=1e-5)
    part = slice(10, 20)  # a window alone
    window = scaling.apply(tokens[:, part], layer_T[part], mask_TC=mask[part])
    assert torch.equal(window, scaled[:, part])
    again = TokenScaling.from_arrays({"template_D": None} | scaling.to_arrays())
    assert torch.equal(again.apply(tokens, layer_T, mask_TC=mask), scaled)


def test_layers_that_never_vary_stay_near_their_value(make_zoo, tmp_path):
    varied = make_zoo(count=4, widths=(6, 5, 3))
    weights = varied.read()
    weights[:, : varied.layout.by_name["layers.1.weight"].offset] = 0.25
    columns = {"network": np.arange(4)}
    zoo = write_zoo(tmp_path / "still", varied.facts, num_rows=4, blocks=[(columns, weights)])
    geometry = Geometry.of(zoo.layout, TokenSettings(4))
    for kind in ("per_layer", "min_max"):
        scaling = TokenScaling.fit([(zoo, np.arange(4))], geometry, kind=kind)
        assert scaling.shift_L[0] == 0.25
        assert (
            0
            < scaling.scale_L[0]
            == pytest.approx(1e-3 * np.sqrt(scaling.scale_L[1] ** 2 / 2), rel=1e-5)
        )
    write_zoo(tmp_path / "zero", varied.facts, num_rows=4, blocks=[(columns, 0 * weights)])
    zero = TokenScaling.fit(
        [(zoo.open(tmp_path / "zero"), np.arange(4))], geometry, kind="per_layer"
    )
    assert not zero.changes


def test_networks_that_do_not_fit_are_refused(shifted, make_zoo):
    geometry, other = Geometry.of(shifted.layout, TokenSettings(11)), make_zoo()
    with pytest.raises(TooFewNetworks, match="0 networks to learn from"):
        TokenScaling.fit([(shifted, np.arange(0))], geometry, kind="per_layer")
    for sources in ([(other, np.arange(3))], [(shifted, np.arange(3)), (other, np.arange(3))]):
        with pytest.raises(ShapeMismatch, match=other.layout.digest):
            TokenScaling.fit(sources, geometry, kind="min_max")
    shard = shifted.shards[0]
    with open(shard.path, "r+b") as file:
        file.seek(shard.offset)
        file.write(b"\x01\x02\x03\x04")
    for kind in ("per_layer", "min_max"):
        with pytest.raises(CorruptShard, match="row 0 does not match its checksum"):
            TokenScaling.fit([(shifted, np.arange(3))], geometry, kind=kind)
