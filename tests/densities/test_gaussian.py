"""The Gaussian's likelihood against scipy's, and the moments of its samples."""

import pytest
import torch
from scipy import stats

from dwf.codecs.codes import CodeShape
from dwf.densities.config import GaussianConfig
from dwf.densities.gaussian import Gaussian
from dwf.errors import ShapeMismatch, TooFewNetworks
from tests.densities.coded import vector_codes


def codes(count, num_features, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(num_features, num_features, generator=generator)
    return vector_codes(torch.randn(count, num_features, generator=generator) @ mixed + 3)


def fit(train, **settings):
    gaussian = Gaussian(GaussianConfig(**settings))
    gaussian.fit(train)
    return gaussian


def covariance(train, shrinkage=0.0):
    sample = train.values.double().T.cov()
    spherical = sample.trace() / len(sample) * torch.eye(len(sample))
    return (1 - shrinkage) * sample + shrinkage * spherical


def test_a_sequence_is_the_vector_of_its_weights():
    mask = torch.tensor([[True, True], [True, False]])
    shape = CodeShape.sequences(["layout"], torch.tensor([[0, 0, 0], [1, 1, 0]]), mask=mask)
    vectors = codes(40, 3)
    sequences = shape.fill(vectors.values)
    drawn = fit(sequences).sample(5, seed=1)
    assert torch.equal(drawn.flatten(), fit(vectors).sample(5, seed=1).values)
    assert not drawn.values[:, ~mask].any()
    assert torch.equal(fit(sequences).log_prob(sequences), fit(vectors).log_prob(vectors))


@pytest.mark.parametrize("shrinkage", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("count", [40, 5])
def test_log_prob_is_scipys(count, shrinkage):
    train, other = codes(count, 8), codes(10, 8, seed=1)
    if count <= 8 and shrinkage == 0:  # on the space that the training codes span
        other = vector_codes(torch.lerp(train.values[:4], train.values[1:], 0.3))
    mean = train.values.double().mean(0)
    wanted = stats.multivariate_normal(mean, covariance(train, shrinkage), allow_singular=True)
    found = fit(train, shrinkage=shrinkage).log_prob(other)
    if count <= 8 and shrinkage == 0:  # scipy's tolerance for "on the space" is for float64
        values = torch.linalg.eigvalsh(covariance(train)).flip(0)[: count - 1]
        offset = other.values.double() - mean
        squared = (offset @ torch.linalg.pinv(covariance(train), rtol=1e-9) * offset).sum(1)
        expected = -0.5 * (squared + (2 * torch.pi * values).log().sum())
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    else:
        torch.testing.assert_close(found, torch.from_numpy(wanted.logpdf(other.values.double())))


def test_off_the_space_of_a_singular_covariance_is_impossible():
    assert torch.isneginf(fit(codes(5, 8)).log_prob(codes(3, 8, seed=1))).all()


def test_diagonal_log_prob_is_scipys():
    train, other = codes(40, 8), codes(10, 8, seed=1).values.double()
    mean, deviation = train.values.double().mean(0), train.values.double().std(0)
    wanted = stats.norm(mean, deviation).logpdf(other).sum(1)
    found = fit(train, covariance="diagonal").log_prob(vector_codes(other))
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "settings"),
    [(40, {}), (5, {}), (5, {"shrinkage": 0.3}), (40, {"covariance": "diagonal"})],
)
def test_samples_have_mean_and_covariance(count, settings):
    train = codes(count, 8)
    drawn = fit(train, **settings).sample(20_000, seed=1).values.double()
    wanted = covariance(train, settings.get("shrinkage", 0.0))
    if settings.get("covariance") == "diagonal":
        wanted = wanted.diagonal().diag()
    scale = wanted.diagonal().max().item()
    torch.testing.assert_close(drawn.T.cov(), wanted, rtol=0, atol=0.04 * scale)
    torch.testing.assert_close(
        drawn.mean(0), train.values.double().mean(0), rtol=0, atol=0.03 * scale**0.5
    )


def test_saved_and_loaded_draws_the_same(tmp_path):
    gaussian = fit(codes(5, 8), shrinkage=0.1)
    gaussian.save(tmp_path)
    loaded = Gaussian.load(tmp_path)
    assert torch.equal(loaded.sample(6, seed=2).values, gaussian.sample(6, seed=2).values)
    assert torch.equal(loaded.sample(3, seed=2).values, gaussian.sample(6, seed=2).values[:3])
    assert loaded.sample(1, 0).shape.layout == "layout"
    assert loaded.config == gaussian.config


def test_wide_codes_cost_no_square_matrix():
    gaussian = fit(codes_wide := vector_codes(torch.randn(6, 200_000)), shrinkage=0.5)
    assert gaussian.sample(2, seed=0).values.shape == (2, 200_000)
    assert gaussian.log_prob(codes_wide).isfinite().all()


def test_bad_codes_are_refused():
    with pytest.raises(TooFewNetworks, match="1 training networks: a Gaussian needs at least 2"):
        fit(codes(1, 8))
    with pytest.raises(ShapeMismatch, match=r"\[4, 2, 3\] are not vectors"):
        fit(vector_codes(torch.zeros(4, 2, 3)))
    with pytest.raises(ShapeMismatch, match="7 numbers and layout layout do not match codes of 8"):
        fit(codes(9, 8)).log_prob(codes(3, 7))
