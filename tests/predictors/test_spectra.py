"""Spectral features of made spectra against closed forms, and the tail against library powerlaw."""

import numpy as np
import powerlaw
import pytest
import torch
from torch import nn

from dwf.errors import ConfigError, ShapeMismatch
from dwf.predictors.spectra import (
    FEATURES,
    eigenvalues,
    features_of,
    matrices_of,
    measure_spectra,
    spectral_features,
    tail_exponent,
)
from dwf.zoo.layout import Layout
from dwf.zoo.store import write_zoo
from tests.zoos import facts_of


def told(values) -> dict[str, float]:
    """The features of one spectrum, by name."""
    row = features_of(np.sort(np.atleast_2d(values))[:, ::-1])[0]
    return dict(zip(FEATURES, row.tolist(), strict=True))


def pareto(alpha: float, num: int, seed: int = 0) -> np.ndarray:
    """Values above 1 whose density falls as their power -alpha, in falling order."""
    uniform = np.random.default_rng(seed).uniform(size=num)
    return np.sort((1 - uniform) ** (-1 / (alpha - 1)))[::-1]


@pytest.mark.parametrize("alpha", [2.0, 3.0, 5.0])
def test_a_planted_tail_is_found_within_its_error(alpha):
    spectra_BE = np.stack([pareto(alpha, 400, seed) for seed in range(8)])
    found_B = tail_exponent(spectra_BE)
    # The standard error of the whole sample; shorter tails are somewhat less sure.
    assert abs(found_B.mean() - alpha) < 3 * (alpha - 1) / (400 * 8) ** 0.5 * 2


@pytest.mark.filterwarnings("ignore:::powerlaw")
def test_the_tail_is_that_of_the_library_at_its_beginning():
    values_E = np.concatenate([pareto(3.0, 100), np.linspace(0.05, 0.99, 60)[::-1]])
    alpha = tail_exponent(values_E[None])[0]
    ours = [
        powerlaw.Fit(values_E, xmin=start, verbose=False).power_law.alpha for start in values_E[1:]
    ]
    nearest = np.argmin(np.abs(np.array(ours) - alpha))
    assert ours[nearest] == pytest.approx(alpha, rel=1e-9)
    assert 0.4 < values_E[1 + nearest] < 2.0  # where the tail was planted: at 1
    library = powerlaw.Fit(values_E, verbose=False)
    assert alpha == pytest.approx(library.power_law.alpha, rel=0.15)


def test_a_tail_by_brute_force():
    """Every beginning tried, with its exponent and distance by their formulas."""
    values = pareto(2.5, 30, seed=3)
    best = (np.inf, np.nan)
    for count in range(30, 1, -1):
        tail = np.sort(values[:count])
        alpha = 1 + count / np.log(tail / tail[0]).sum()
        law = 1 - (tail / tail[0]) ** (1 - alpha)
        distance = max(abs(law[i] - i / count) for i in range(count))
        best = min(best, (distance, alpha))
    assert tail_exponent(values[None])[0] == pytest.approx(best[1], rel=1e-12)


def test_the_identity_has_full_rank_and_entropy_and_no_tail():
    found = told(eigenvalues(np.eye(6, dtype=np.float32).reshape(1, -1), (6, 6)))
    assert found["stable_rank"] == pytest.approx(6) and found["entropy"] == pytest.approx(1)
    assert found["log_spectral_norm"] == pytest.approx(0)
    assert found["log_norm"] == pytest.approx(np.log10(6))
    assert np.isnan([found["alpha"], found["alpha_weighted"], found["log_alpha_norm"]]).all()


def test_rank_one_has_no_entropy():
    one = np.outer([1.0, 2.0, 2.0], [3.0, 0.0, 4.0, 0.0]).astype(np.float32)
    found = told(eigenvalues(one.reshape(1, -1), (3, 4)))
    assert found["stable_rank"] == pytest.approx(1) and found["entropy"] == pytest.approx(0)
    assert found["log_spectral_norm"] == pytest.approx(np.log10(9 * 25))


def test_norms_of_a_spectrum_by_hand():
    found = told([8.0, 4.0, 2.0, 1.0])
    alpha = found["alpha"]
    powers = sum(value**alpha for value in (8, 4, 2, 1))
    assert found["log_alpha_norm"] == pytest.approx(np.log10(powers))
    assert found["alpha_weighted"] == pytest.approx(alpha * np.log10(8))
    assert found["stable_rank"] == pytest.approx(15 / 8)
    shares = np.array([8, 4, 2, 1]) / 15
    assert found["entropy"] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(4))


def test_zeros_have_no_features():
    assert np.isnan(features_of(np.zeros((1, 5)))).all()


def test_a_convolution_is_a_matrix_for_each_place_of_its_kernel():
    weight = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)
    expected = [np.linalg.svd(weight[:, :, i, j])[1] ** 2 for i in range(2) for j in range(2)]
    found_BE = eigenvalues(weight.reshape(1, -1), weight.shape)
    np.testing.assert_allclose(found_BE[0], np.sort(np.concatenate(expected))[::-1], rtol=1e-5)


def zoo_of(folder, module: nn.Module, count: int = 5):
    layout = Layout.of(module)
    weights_ND = np.random.default_rng(1).normal(size=(count, layout.size)).astype(np.float32)
    columns = {"network": np.arange(count), "epoch": np.zeros(count, int)}
    return write_zoo(folder, facts_of(layout), num_rows=count, blocks=[(columns, weights_ND)])


def test_networks_of_a_zoo_layer_by_layer(tmp_path):
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10))
    zoo = zoo_of(tmp_path / "zoo", module)
    assert [entry.name for entry in matrices_of(zoo.layout)] == ["0.weight", "2.weight"]
    rows = np.array([3, 0])
    features_NLF = measure_spectra([(zoo, rows)])
    assert features_NLF.shape == (2, 2, len(FEATURES))
    for features_LF, row in zip(features_NLF, rows, strict=True):
        state = zoo.layout.unflatten(torch.from_numpy(zoo.read(np.array([row]))))
        norm = torch.linalg.matrix_norm(state["2.weight"][0].double(), 2).item()
        told_norm = features_LF[1, FEATURES.index("log_spectral_norm")]
        assert told_norm == pytest.approx(2 * np.log10(norm))
    with pytest.raises(ShapeMismatch, match="have 142 numbers"):
        spectral_features(np.zeros((1, 7), np.float32), zoo.layout)


def test_networks_without_a_matrix_are_refused():
    with pytest.raises(ConfigError, match=r"no tensor .* is a matrix.*: weight \[3\]"):
        matrices_of(Layout.of(nn.BatchNorm1d(3)))
