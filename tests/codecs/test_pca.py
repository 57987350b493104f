"""PCA against numpy's SVD, for any shards and windows; a killed fit resumes to the same bytes."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dwf.codecs import pca
from dwf.codecs.codec import Codec
from dwf.codecs.config import PcaConfig
from dwf.codecs.pca import PcaCodec
from dwf.errors import ConfigError, RunConflict, ShapeMismatch, TooFewNetworks
from dwf.run_folder import RunFolder
from dwf.settings import build
from dwf.zoo.store import Zoo, write_zoo


def fit(zoo: Zoo, run, **settings) -> PcaCodec:
    sources = ([(zoo, zoo.rows(split="train"))], [(zoo, zoo.rows(split="val"))])
    return PcaCodec(PcaConfig(**settings)).fit(*sources, run=run)


def matrix(zoo: Zoo, split: str) -> np.ndarray:
    return zoo.read(zoo.rows(split=split)).astype(np.float64)


def test_equals_numpy_svd(plant_zoo, run):
    zoo = plant_zoo()
    train = matrix(zoo, "train")
    left, singular, right = np.linalg.svd(train - train.mean(0), full_matrices=False)
    codec = fit(zoo, run, components=7)
    scores = codec.encode_zoo([(zoo, zoo.rows(split="train"))]).values.double().numpy()
    sign = np.sign((scores * left[:, :7]).sum(0))
    np.testing.assert_allclose(scores, sign * left[:, :7] * singular[:7], atol=1e-5)
    np.testing.assert_allclose(codec.components_CK, sign[:, None] * right[:7], atol=1e-6)
    np.testing.assert_allclose(codec.arrays["eigenvalues_N"], singular[:11] ** 2, rtol=1e-9)
    captured = (singular[:7] ** 2).sum() / (singular**2).sum()
    np.testing.assert_allclose(codec.facts["variance_captured_train"], captured, rtol=1e-12)
    held_out = matrix(zoo, "val")
    expected = (held_out - train.mean(0)) @ right[:7].T @ right[:7] + train.mean(0)
    decoded = codec.decode(codec.encode_zoo([(zoo, zoo.rows(split="val"))]), zoo.layout)
    np.testing.assert_allclose(decoded, expected, atol=2e-5)


@pytest.mark.parametrize("settings", [{}, {"components": 7}, {"variance": 0.99}])
def test_many_small_networks_give_what_few_would(plant_zoo, run, tmp_path, monkeypatch, settings):
    """The matrix of the numbers' products has the same components as that of the networks'."""
    zoo = plant_zoo(400, num_shards=3, batchnorm=True)
    monkeypatch.setattr(pca, "WINDOW_BYTES", 40 * 4 * zoo.layout.size)
    monkeypatch.setattr(PcaCodec, "_gram", None)  # is not used
    codec = fit(zoo, run, **settings)
    monkeypatch.undo()
    monkeypatch.setattr(pca, "_MANY", 1000)
    other = fit(zoo, RunFolder(tmp_path / "runs" / "other", {"any": "settings"}), **settings)
    num = codec.num_covered
    assert 2 * num < len(zoo.rows(split="train")) and codec.shape.size == other.shape.size
    values = codec.arrays["eigenvalues_N"]
    np.testing.assert_allclose(values, other.arrays["eigenvalues_N"][:num], rtol=1e-8)
    centred = matrix(zoo, "train") - matrix(zoo, "train").mean(0)
    covered = np.hstack([centred[:, start:stop] for start, stop in codec.spans])
    np.testing.assert_allclose(values, np.linalg.svd(covered, compute_uv=False) ** 2, rtol=1e-8)
    np.testing.assert_allclose(codec.components_CK, other.components_CK, atol=2e-5)
    sources = [(zoo, zoo.rows(split="val"))]
    codes, others = (one.encode_zoo(sources).values for one in (codec, other))
    torch.testing.assert_close(codes, others, rtol=0, atol=2e-3)


def test_all_components_reconstruct_training_networks(plant_zoo, run):
    zoo = plant_zoo()
    codec = fit(zoo, run)
    assert codec.shape.size == len(zoo.rows(split="train")) - 1
    weights = torch.from_numpy(zoo.read(zoo.rows(split="train")))
    back = codec.decode(codec.encode(weights, zoo.layout), zoo.layout)
    torch.testing.assert_close(back, weights, rtol=0, atol=2e-5)


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("window_bytes", [1, 4 * 20 * 7])
def test_any_window_and_any_sharding_give_the_same(
    plant_zoo, run, tmp_path, monkeypatch, num_shards, window_bytes
):
    whole = fit(plant_zoo(), run, components=6)
    zoo = plant_zoo(num_shards=num_shards, name="again")
    monkeypatch.setattr(pca, "WINDOW_BYTES", window_bytes)
    codec = fit(zoo, RunFolder(tmp_path / "again", {}), components=6)
    np.testing.assert_allclose(codec.components_CK, whole.components_CK, atol=2e-7)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    np.testing.assert_allclose(codes.values, whole.encode(weights, zoo.layout).values, rtol=1e-5)
    decoded = codec.decode(codes, zoo.layout)
    np.testing.assert_allclose(decoded, whole.decode(codes, zoo.layout), rtol=1e-6)


def test_held_out_variance_is_brute_force(plant_zoo, run):
    zoo = plant_zoo()
    codec = fit(zoo, run, components=3)
    mean, held_out = matrix(zoo, "train").mean(0), matrix(zoo, "val")
    decoded = codec.decode(codec.encode_zoo([(zoo, zoo.rows(split="val"))]), zoo.layout)
    lost = ((held_out - decoded.numpy()) ** 2).sum() / ((held_out - mean) ** 2).sum()
    np.testing.assert_allclose(codec.facts["variance_captured_held_out"], 1 - lost, rtol=1e-5)


def test_without_held_out_networks_no_variance_is_claimed(plant_zoo, run):
    zoo = plant_zoo()
    codec = PcaCodec(PcaConfig()).fit([(zoo, np.arange(20))], [(zoo, np.arange(0))], run=run)
    assert codec.facts["variance_captured_held_out"] is None


def test_variance_target_takes_as_few_components_as_reach_it(plant_zoo, run):
    zoo = plant_zoo()
    train = matrix(zoo, "train")
    squares = np.linalg.svd(train - train.mean(0), compute_uv=False) ** 2
    captured = np.cumsum(squares) / squares.sum()
    codec = fit(zoo, run, variance=0.9)
    count = codec.shape.size
    assert captured[count - 1] >= 0.9 > captured[count - 2]


def test_whitened_scores_have_deviation_one(plant_zoo, run, tmp_path):
    zoo = plant_zoo()
    rows = zoo.rows(split="train")
    codec = fit(zoo, run, whiten=True)
    codes = codec.encode_zoo([(zoo, rows)])
    np.testing.assert_allclose(codes.values.std(0), 1, rtol=1e-4)
    plain = fit(zoo, RunFolder(tmp_path / "plain", {}))
    expected = plain.decode(plain.encode_zoo([(zoo, rows)]), zoo.layout)
    np.testing.assert_allclose(codec.decode(codes, zoo.layout), expected, atol=1e-5)


def test_buffers_come_from_the_training_networks_mean(plant_zoo, run):
    zoo = plant_zoo(batchnorm=True)
    codec = fit(zoo, run)
    decoded = codec.decode(codec.encode_zoo([(zoo, zoo.rows(split="train"))]), zoo.layout).numpy()
    train = matrix(zoo, "train")
    for entry in zoo.layout.entries:
        part = slice(entry.offset, entry.stop)
        expected = train[:, part].mean(0, keepdims=True) if entry.role == "buffer" else None
        expected = train[:, part] if expected is None else expected.repeat(len(train), 0)
        np.testing.assert_allclose(decoded[:, part], expected, atol=2e-5)


def test_loaded_codec_is_the_saved_one_bit_for_bit(plant_zoo, run, tmp_path):
    zoo = plant_zoo()
    codec = fit(zoo, run, components=5)
    codec.save(tmp_path / "codec")
    loaded = Codec.load(tmp_path / "codec")
    assert isinstance(loaded, PcaCodec) and isinstance(loaded.components_CK, np.memmap)
    weights = torch.from_numpy(zoo.read())
    codes = codec.encode(weights, zoo.layout)
    assert torch.equal(loaded.encode(weights, zoo.layout).values, codes.values)
    assert torch.equal(loaded.decode(codes, zoo.layout), codec.decode(codes, zoo.layout))


def test_refuses_truncated_components(plant_zoo, run, tmp_path):
    fit(plant_zoo(), run).save(tmp_path / "codec")
    components = tmp_path / "codec" / "components.npy"
    components.write_bytes(components.read_bytes()[:-4])
    with pytest.raises(RunConflict, match="no whole codec"):
        Codec.load(tmp_path / "codec")


def test_refuses_altered_components(plant_zoo, run, tmp_path):
    fit(plant_zoo(), run).save(tmp_path / "codec")
    components = tmp_path / "codec" / "components.npy"
    altered = bytearray(components.read_bytes())
    altered[-3] ^= 1
    components.write_bytes(altered)
    with pytest.raises(RunConflict, match=r"no whole codec \(components.npy does not match"):
        Codec.load(tmp_path / "codec")


def test_refuses_more_components_than_the_networks_span(plant_zoo, run):
    with pytest.raises(TooFewNetworks, match=r"components = 12, but 12 .* only 11.*at least 13"):
        fit(plant_zoo(), run, components=12)


def test_counts_copies_of_a_network_once(make_zoo, tmp_path, run):
    varied = make_zoo()
    weights = varied.read([0, 1, 2, 3, 0, 1, 2, 3])
    columns = {"network": np.arange(8), "split": np.full(8, "train")}
    zoo = write_zoo(tmp_path / "copies", varied.facts, num_rows=8, blocks=[(columns, weights)])
    with pytest.raises(TooFewNetworks, match=r"components = 7, but 8 .* only 3 directions"):
        fit(zoo, run, components=7)
    assert fit(zoo, run).shape.size == 3


@pytest.mark.parametrize("count", [0, 1])
def test_refuses_fewer_than_two_networks(plant_zoo, run, count):
    with pytest.raises(TooFewNetworks, match=f"{count} .*networks"):
        PcaCodec(PcaConfig()).fit([(plant_zoo(), np.arange(count))], [], run=run)


def test_refuses_another_layout(plant_zoo, run):
    zoo, other = plant_zoo(), plant_zoo(name="other", hidden=7)
    codec = fit(zoo, run)
    with pytest.raises(ShapeMismatch, match=other.layout.digest):
        codec.encode_zoo([(other, np.arange(2))])


def test_refuses_a_number_and_a_target_at_once():
    with pytest.raises(ConfigError, match=r"components = 3 and variance = 0\.5"):
        build(PcaConfig, {"components": 3, "variance": 0.5}, source="a.yaml")


def test_a_full_disk_is_an_error_and_leaves_nothing(plant_zoo, run):
    zoo = plant_zoo()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # stands for a disk that is full
    try:
        with pytest.raises(OSError):
            fit(zoo, run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((run.path / "codec").iterdir())
    assert fit(zoo, run).shape.size == 11


FIT_SLOWLY = """
import sys, time
from pathlib import Path
from dwf.codecs import pca
from dwf.codecs.config import PcaConfig
from dwf.run_folder import RunFolder
from dwf.zoo.store import Zoo
pca.WINDOW_BYTES = 4 * 20 * 7
centred = pca.PcaCodec._centred
def slow(self, read, span):
    time.sleep(0.05)
    return centred(self, read, span)
pca.PcaCodec._centred = slow
zoo = Zoo.open(sys.argv[1])
sources = [(zoo, zoo.rows(split="train"))], [(zoo, zoo.rows(split="val"))]
pca.PcaCodec(PcaConfig(components=6)).fit(*sources, run=RunFolder(Path(sys.argv[2]), {}))
"""


def test_killed_while_writing_components_then_fitted_again_is_bitwise_equal(
    plant_zoo, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(pca, "WINDOW_BYTES", 4 * 20 * 7)
    zoo, folder = plant_zoo(), tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", FIT_SLOWLY, str(zoo.path), str(folder)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob("codec/components.npy.partial-*")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (folder / "codec" / "components.npy").exists()
    fit(zoo, RunFolder(folder, {}), components=6)
    fit(zoo, run, components=6)
    assert [p.name for p in (folder / "codec").iterdir()] == ["components.npy"]
    resumed, straight = (p / "codec" / "components.npy" for p in (folder, run.path))
    assert resumed.read_bytes() == straight.read_bytes()
