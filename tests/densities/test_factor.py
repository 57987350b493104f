"""A Gaussian of codes on a disk against that of codes in memory, and against NumPy's SVD.

And it never holds them: the largest tensor that torch makes is counted, and NumPy's memory traced.
"""

import tracemalloc

import numpy as np
import pytest
import torch

from dwf import preemption
from dwf.codecs.codes import Codes, CodeShape
from dwf.densities import factor, gaussian
from dwf.densities.config import GaussianConfig
from dwf.densities.gaussian import DIRECTIONS, Gaussian
from dwf.errors import CorruptCheckpoint, Preempted, TooLarge
from dwf.run_folder import RunFolder
from dwf.zoo import checksums
from tests.densities.coded import Largest, vector_codes


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that few codes are many blocks, and windows."""
    monkeypatch.setattr(factor, "BLOCK_NUMBERS", 64)


@pytest.fixture
def fit(tmp_path):
    """What fits a Gaussian of settings."""
    run = RunFolder(tmp_path / "run", {})

    def one(codes: Codes, **settings) -> Gaussian:
        density = Gaussian(GaussianConfig(**settings))
        density.fit(codes, run=run)
        return density

    return one


def vectors(count: int, size: int, seed: int = 0) -> Codes:
    """Around a mean that is far from 0, of deviations from 0.1 to 10."""
    generator = torch.Generator().manual_seed(seed)
    values_NK = torch.randn(count, size, generator=generator)
    return vector_codes(values_NK * torch.logspace(-1, 1, size) + 100)


def sequences(count: int) -> Codes:
    mask = torch.tensor([[True, True], [True, False]])
    shape = CodeShape.sequences(["layout"], torch.tensor([[0, 0, 0], [1, 1, 0]]), mask=mask)
    return shape.fill(vectors(count, 3).values)


@pytest.mark.parametrize("codes", [vectors(9, 200), vectors(200, 9), vectors(9, 9), sequences(12)])
@pytest.mark.parametrize("settings", [{}, {"shrinkage": 0.2}, {"covariance": "diagonal"}])
def test_codes_on_a_disk_have_the_gaussian_of_those_in_memory(fit, on_disk, codes, settings):
    held, stored = fit(codes, **settings), fit(on_disk(codes), **settings)
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(stored.mean_K, held.mean_K, **close)
    torch.testing.assert_close(stored.variance_R, held.variance_R, **close)
    assert stored.floor == pytest.approx(held.floor, rel=1e-9)
    drawn, wanted = stored.sample(5, seed=1), held.sample(5, seed=1)
    # Samples are float32, in which numbers of 100 are told apart by 8e-6.
    torch.testing.assert_close(drawn.values, wanted.values, rtol=0, atol=2e-5)
    torch.testing.assert_close(stored.log_prob(codes), held.log_prob(codes), **close)
    assert stored.is_mapped == (settings.get("covariance") != "diagonal")


@pytest.mark.parametrize(("count", "size"), [(12, 90), (90, 12)])
def test_variances_far_apart_are_those_of_the_svd(fit, on_disk, count, size):
    """Down to 1e-11 of the greatest: a matrix of products would have lost half of the digits."""
    deviations = torch.logspace(0, -5.5, 12, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(side, 12, generator=generator).double())[0]
        for side in (count, size)
    )
    codes = vector_codes((left @ deviations.diag() @ right.T).float())
    exact = codes.values.double().numpy()
    exact = (exact - exact.mean(0)) / np.sqrt(len(exact) - 1)
    wanted_R = np.linalg.svd(exact, compute_uv=False) ** 2
    wanted_R = wanted_R[wanted_R > 1e-12 * wanted_R[0]]
    stored = fit(on_disk(codes))
    assert len(wanted_R) >= 11
    torch.testing.assert_close(stored.variance_R, torch.from_numpy(wanted_R), rtol=1e-8, atol=0)
    product = stored.directions_RK @ stored.directions_RK.T
    torch.testing.assert_close(product, torch.eye(len(product)).double(), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("count", "size"), [(128, 4096), (4096, 128)])
def test_nothing_of_the_size_of_all_codes_is_held(tmp_path, fit, on_disk, monkeypatch, count, size):
    monkeypatch.setattr(factor, "BLOCK_NUMBERS", 128 * 64)
    monkeypatch.setattr(checksums, "_BLOCK_BYTES", 2**16)
    codes, found, all_bytes = vectors(count, size), {}, 8 * 128 * 4096
    stored = on_disk(codes)
    with Largest():  # what is imported on the way is not to be traced
        fit(on_disk(vectors(2, 2), "few")).save(tmp_path / "few")
    for name, given in (("held", codes), ("stored", stored)):
        tracemalloc.start()
        with Largest() as largest:
            density = fit(given)
            density.save(tmp_path / name)
            Gaussian.load(tmp_path / name).sample(1, seed=0)
        found[name] = max(largest.num_bytes, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert found["held"] >= all_bytes  # so the count sees them
    assert found["stored"] <= all_bytes / 8


def test_saved_and_loaded_it_draws_the_same_wherever_the_folder_lies(tmp_path, fit, on_disk):
    codes = vectors(9, 200)
    fitted = fit(on_disk(codes))
    drawn = fitted.sample(6, seed=2).values
    fitted.save(tmp_path / "density")
    assert sorted(file.name for file in (tmp_path / "density").iterdir()) == [
        DIRECTIONS,
        "gaussian.pt",
    ]
    assert (tmp_path / "density" / "gaussian.pt").stat().st_size < 8 * 9 * 200
    (tmp_path / "train.npy").unlink()
    assert torch.equal(fitted.sample(6, seed=2).values, drawn)
    fitted.save(tmp_path / "density")  # onto what it reads from
    (tmp_path / "density").rename(tmp_path / "moved")
    loaded = Gaussian.load(tmp_path / "moved")
    assert torch.equal(loaded.sample(6, seed=2).values, drawn)
    assert torch.equal(loaded.log_prob(codes), fitted.log_prob(codes))
    assert loaded.is_mapped
    file = tmp_path / "moved" / DIRECTIONS
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptCheckpoint, match=r"directions\.npy is damaged"):
        Gaussian.load(tmp_path / "moved")


def test_codes_that_are_all_the_same_have_no_direction(tmp_path, fit, on_disk):
    codes = vector_codes(torch.full((4, 90), 3.0))
    stored = fit(on_disk(codes))
    stored.save(tmp_path / "density")
    for density in (stored, Gaussian.load(tmp_path / "density")):
        assert torch.equal(density.sample(4, seed=0).values, codes.values)


def test_a_likelihood_of_parts_is_that_of_all(fit, monkeypatch):
    codes = vectors(9, 200)
    density = fit(codes, shrinkage=0.1)
    whole = density.log_prob(codes)
    monkeypatch.setattr(gaussian, "_CHUNK_NUMBERS", 500)
    torch.testing.assert_close(density.log_prob(codes), whole, rtol=1e-12, atol=0)
    assert not len(density.log_prob(codes.take(slice(0))))


def test_what_memory_is_too_small_for_is_refused_before_codes_are_read(fit, on_disk, monkeypatch):
    codes, room = on_disk(vectors(9, 200)), GaussianConfig().bytes_to_fit(9, 200) - 1
    monkeypatch.setattr(gaussian, "machine_bytes", lambda: room)
    monkeypatch.setattr(Codes, "take", None)
    with pytest.raises(TooLarge, match=r"of 9 codes of 200 numbers .*covariance diagonal"):
        fit(codes)


def test_a_signal_stops_it_between_two_windows(fit, on_disk, monkeypatch):
    monkeypatch.setattr(preemption, "is_asked", lambda: True)
    with pytest.raises(Preempted):
        fit(on_disk(vectors(9, 200)))
