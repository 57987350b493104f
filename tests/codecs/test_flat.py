"""The flat codec: weights standardised as numpy does on training rows alone, and exactly back."""

import json

import numpy as np
import pytest
import torch

from dwf.codecs.codec import Codec
from dwf.codecs.config import FlatConfig
from dwf.codecs.flat import FlatCodec
from dwf.errors import RunConflict, ShapeMismatch, TooFewNetworks
from dwf.zoo.store import Zoo, write_zoo


def fit(zoo: Zoo, run, **settings) -> FlatCodec:
    sources = ([(zoo, zoo.rows(split="train"))], [(zoo, zoo.rows(split="val"))])
    return FlatCodec(FlatConfig(**settings)).fit(*sources, run=run)


@pytest.mark.parametrize("standardise", ["none", "per_tensor", "per_weight"])
def test_round_trip_is_exact_to_float32_rounding(plant_zoo, run, standardise):
    zoo = plant_zoo()
    codec = fit(zoo, run, standardise=standardise)
    weights = torch.from_numpy(zoo.read())
    back = codec.decode(codec.encode(weights, zoo.layout), zoo.layout)
    rounding = np.spacing(np.abs(zoo.read()).max())
    torch.testing.assert_close(back, weights, rtol=0, atol=3 * rounding)
    if standardise == "none":
        assert torch.equal(back, weights)


def test_per_weight_is_brute_force_on_training_rows_only(plant_zoo, run):
    zoo = plant_zoo(num_shards=2)
    codes = fit(zoo, run).encode(torch.from_numpy(zoo.read()), zoo.layout).values
    train = zoo.read(zoo.rows(split="train")).astype(np.float64)
    expected = (zoo.read().astype(np.float64) - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(codes, expected, atol=1e-4)
    assert abs(codes[zoo.rows(split="val")].mean()) > 1e-3  # held-out rows are not centred


def test_per_tensor_is_brute_force(plant_zoo, run):
    zoo = plant_zoo()
    rows = zoo.rows(split="train")
    codes = fit(zoo, run, standardise="per_tensor").encode_zoo([(zoo, rows)]).values.double()
    for entry in zoo.layout.entries:
        part = zoo.read(rows, entry.offset, stop=entry.stop).astype(np.float64)
        expected = (part - part.mean()) / part.std()
        np.testing.assert_allclose(codes[:, entry.offset : entry.stop], expected, atol=1e-5)


def test_a_weight_that_never_varies_stays_near_its_value(make_zoo, tmp_path, run):
    varied = make_zoo()
    weights = varied.read()
    weights[:, 5] = 0.25  # one weight
    bias = varied.layout.by_name["layers.0.bias"]
    weights[:, bias.offset : bias.stop] = 0.0  # one whole tensor
    columns = {name: values for name, values in varied.columns.items() if name != "checksum"}
    zoo = write_zoo(
        tmp_path / "constant", varied.facts, num_rows=len(weights), blocks=[(columns, weights)]
    )
    codec = fit(zoo, run)
    codes = codec.encode(torch.from_numpy(weights), zoo.layout)
    assert codes.values.isfinite().all() and (codes.values[:, 5] == 0).all()
    codes.values.add_(1.0)  # a generator's error
    decoded = codec.decode(codes, zoo.layout)
    assert (decoded[:, 5] - 0.25).abs().max() < 2e-3
    assert decoded[:, bias.offset : bias.stop].abs().max() < 2e-3


def test_networks_that_are_all_the_same_are_kept(make_zoo, tmp_path, run):
    varied = make_zoo()
    weights = np.repeat(varied.read([0]), 12, 0)
    columns = {name: values for name, values in varied.columns.items() if name != "checksum"}
    zoo = write_zoo(tmp_path / "same", varied.facts, num_rows=12, blocks=[(columns, weights)])
    codec = fit(zoo, run)
    codes = codec.encode(torch.from_numpy(weights), zoo.layout)
    assert (codes.values == 0).all()
    assert torch.equal(codec.decode(codes, zoo.layout), torch.from_numpy(weights))


def test_buffers_come_from_the_training_networks_mean(plant_zoo, run):
    zoo = plant_zoo(batchnorm=True)
    codec = fit(zoo, run)
    weights = torch.from_numpy(zoo.read())
    buffers = [entry for entry in zoo.layout.entries if entry.role == "buffer"]
    codes = codec.encode(weights, zoo.layout)
    assert len(buffers) == 2
    assert codes.values.shape[1] == zoo.layout.size - sum(entry.size for entry in buffers)
    decoded = codec.decode(codes, zoo.layout)
    mean = zoo.read(zoo.rows(split="train")).astype(np.float64).mean(0)
    for entry in zoo.layout.entries:
        part = slice(entry.offset, entry.stop)
        expected = np.broadcast_to(mean[part], (20, entry.size))
        expected = expected if entry.role == "buffer" else weights[:, part]
        np.testing.assert_allclose(decoded[:, part], expected, atol=3e-5)


def test_buffers_are_coded_if_asked(plant_zoo, run):
    zoo = plant_zoo(batchnorm=True)
    codec = fit(zoo, run, buffers=True)
    weights = torch.from_numpy(zoo.read())
    decoded = codec.decode(codec.encode(weights, zoo.layout), zoo.layout)
    torch.testing.assert_close(decoded, weights, rtol=0, atol=3e-5)


def test_loaded_codec_is_the_saved_one_bit_for_bit(plant_zoo, run, tmp_path):
    zoo = plant_zoo()
    codec = fit(zoo, run)
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert torch.equal(loaded.encode(weights, zoo.layout).values, codes.values)
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))
    assert (loaded.config, loaded.facts, loaded.layout) == (codec.config, codec.facts, zoo.layout)
    assert not [p for p in (tmp_path / "codec").iterdir() if p.suffix in (".pkl", ".pt")]


def test_refuses_another_layout(plant_zoo, run):
    zoo, other = plant_zoo(), plant_zoo(name="other", hidden=7)
    codec = fit(zoo, run)
    weights = torch.from_numpy(other.read())
    with pytest.raises(ShapeMismatch, match=f"{other.layout.digest}.*{zoo.layout.digest}"):
        codec.encode(weights, other.layout)
    codes = codec.encode(torch.from_numpy(zoo.read()), zoo.layout)
    with pytest.raises(ShapeMismatch, match=other.layout.digest):
        codec.decode(codes, other.layout)
    with pytest.raises(ShapeMismatch, match="one architecture"):
        FlatCodec(FlatConfig()).fit([(zoo, np.arange(3)), (other, np.arange(3))], [], run=run)


def test_refuses_no_networks(plant_zoo, run):
    with pytest.raises(TooFewNetworks, match=r"planted: 0 networks .* at least 1"):
        FlatCodec(FlatConfig()).fit([(plant_zoo(), np.arange(0))], [], run=run)


@pytest.mark.parametrize("damage", ["missing", "truncated", "not json", "unknown kind"])
def test_refuses_a_damaged_folder(plant_zoo, run, tmp_path, damage):
    folder = tmp_path / "codec"
    fit(plant_zoo(), run).save(folder)
    head, arrays = folder / "codec.json", folder / "codec.npz"
    if damage == "missing":
        arrays.unlink()
    elif damage == "truncated":
        arrays.write_bytes(arrays.read_bytes()[:-10])
    elif damage == "not json":
        head.write_text("{")
    else:
        head.write_text(json.dumps(json.loads(head.read_text()) | {"kind": "zip"}))
    with pytest.raises(RunConflict, match=r"no whole codec.*fit the generator again"):
        Codec.load(folder)
