"""The kernel density's likelihood against scikit-learn's, and the statistics of its samples."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import KernelDensity

from dwf.codecs.codes import Codes, CodeShape
from dwf.densities import kde as module
from dwf.densities.config import KdeConfig
from dwf.densities.kde import Kde
from dwf.errors import ConfigError, CorruptCheckpoint, ShapeMismatch, TooFewNetworks
from dwf.settings import build
from tests.densities.coded import vector_codes

MODES = ("token", "joint", "individual")


def vectors(count: int, num_features: int = 6, seed: int = 0) -> Codes:
    values = torch.randn(count, num_features, generator=torch.Generator().manual_seed(seed))
    return vector_codes(values)


def sequences(count: int, num_tokens: int = 4, width: int = 3, seed: int = 0) -> Codes:
    """Tokens of `width` numbers; the last one stands for a single weight."""
    mask = torch.ones(num_tokens, width, dtype=torch.bool)
    mask[-1, 1:] = False
    positions = torch.tensor([(t, t // 2, t % 2) for t in range(num_tokens)])
    shape = CodeShape.sequences(["layout"], positions, mask=mask)
    return shape.fill(vectors(count, shape.size, seed=seed).values)


def fit(codes: Codes, seed: int = 0, **settings) -> Kde:
    kde = Kde(KdeConfig(**settings))
    kde.fit(codes, seed=seed)
    return kde


def sklearns(anchors_AK, points_NK, bandwidth: float) -> np.ndarray:
    """Log density of scikit-learn's `KernelDensity`, float64, shape [N]."""
    found = KernelDensity(bandwidth=bandwidth).fit(np.asarray(anchors_AK, np.float64))
    return found.score_samples(np.asarray(points_NK, np.float64))


@pytest.mark.parametrize("block", [2**22, 7])  # all at once; windows and chunks of the least size
def test_log_prob_is_scikit_learns(block, monkeypatch):
    monkeypatch.setattr(module, "_ANCHOR_NUMBERS", block)
    monkeypatch.setattr(module, "_DISTANCES", block)
    train, other = sequences(9), sequences(5, seed=1)
    mask = train.shape.mask

    def found(mode):
        return fit(train, mode=mode, bandwidth=0.3).log_prob(other)

    joint = sklearns(train.flatten(), other.flatten(), bandwidth=0.3)
    torch.testing.assert_close(found("joint"), torch.from_numpy(joint))
    per_token = sum(
        sklearns(train.values[:, t, mask[t]], other.values[:, t, mask[t]], bandwidth=0.3)
        for t in range(4)
    )
    torch.testing.assert_close(found("token"), torch.from_numpy(per_token))
    a, b = train.flatten(), other.flatten()
    each = sum(sklearns(a[:, [k]], b[:, [k]], bandwidth=0.3) for k in range(a.shape[1]))
    torch.testing.assert_close(found("individual"), torch.from_numpy(each))


def test_memory_of_a_likelihood_is_bounded(monkeypatch):
    """Distances that are held at once: of `individual` there is one for each number of a token."""
    monkeypatch.setattr(module, "_DISTANCES", 600)
    held, mixture = [], module._log_mixture
    monkeypatch.setattr(
        module, "_log_mixture", lambda each: held.append(each.numel()) or mixture(each)
    )
    train, other = sequences(20, width=5), sequences(50, width=5, seed=1)
    for mode in MODES:
        fit(train, mode=mode).log_prob(other)
        assert 0 < max(held) <= 600, mode
        held.clear()


def test_log_prob_of_vectors_is_scikit_learns():
    train, other = vectors(9), vectors(5, seed=1)
    joint = fit(train, mode="joint", bandwidth=0.3).log_prob(other)
    torch.testing.assert_close(
        joint, torch.from_numpy(sklearns(train.values, other.values, bandwidth=0.3))
    )
    each = sum(
        sklearns(train.values[:, [k]], other.values[:, [k]], bandwidth=0.3) for k in range(6)
    )
    found = fit(train, mode="individual", bandwidth=0.3).log_prob(other)
    torch.testing.assert_close(found, torch.from_numpy(each))


def test_log_prob_of_a_gaussian_is_scipys():
    other = sequences(5, seed=1)
    found = fit(sequences(9), mode="gaussian", mean=0.5, sigma=3.0).log_prob(other)
    expected = stats.norm(0.5, 3.0).logpdf(other.flatten().double()).sum(1)
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_a_relative_bandwidth_is_that_of_standardised_codes():
    train, other = vectors(40), vectors(5, seed=1)
    scale = torch.tensor([0.1, 1, 3, 10, 0.5, 7])
    stretched = [vector_codes(codes.values * scale) for codes in (train, other)]
    deviation = train.values.double().std(0, correction=0)
    found = fit(stretched[0], mode="joint", bandwidth=0.4, relative=True).log_prob(stretched[1])
    points, anchors = other.values.double() / deviation, train.values.double() / deviation
    expected = sklearns(anchors, points, bandwidth=0.4) - (deviation * scale).log().sum().item()
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_a_number_that_no_anchor_varies_has_little_noise_in_relative_bandwidth():
    train = vectors(40)
    train.values[:, 2] = 3.0
    kde = fit(train, mode="joint", bandwidth=0.4, relative=True)
    spread = train.values.double().var(0, correction=0).mean().sqrt().item()
    drawn = kde.sample(500, seed=0).values[:, 2].double()
    assert drawn.mean().item() == pytest.approx(3, abs=1e-3 * spread)
    assert drawn.std().item() == pytest.approx(0.4 * 1e-3 * spread, rel=0.1)
    assert kde.log_prob(train).isfinite().all()


def test_the_tokens_of_a_sample_are_independent():
    """The published sampler draws one anchor and one offset for all tokens of all samples."""
    ends = sequences(2).shape.fill(torch.tensor([-1.0, 1.0])[:, None].expand(2, 10))
    count, limit = 4000, 5 / np.sqrt(4000)

    def correlations(mode):
        return np.corrcoef(fit(ends, mode=mode).sample(count, seed=3).flatten().T.numpy())

    token_K = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3])
    same_token = token_K[:, None] == token_K
    own = 1 / (1 + 0.2**2)  # variance of the anchors over that of the samples
    expected = {
        "joint": np.full((10, 10), own),
        "token": np.where(same_token, own, 0.0),
        "individual": np.zeros((10, 10)),
    }
    for mode, wanted in expected.items():
        np.fill_diagonal(wanted, 1.0)
        np.testing.assert_allclose(correlations(mode), wanted, atol=limit, err_msg=mode)


def test_samples_are_independent_of_each_other():
    ends = sequences(2).shape.fill(torch.tensor([-1.0, 1.0])[:, None].expand(2, 10))
    drawn = fit(ends, mode="token").sample(4001, seed=3).flatten()[:, 0].numpy()
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5 / np.sqrt(4000)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_drawn_together_has_one_anchor(mode):
    train = sequences(50)
    drawn = fit(train, mode=mode, bandwidth=1e-6).sample(30, seed=1)
    offset = (drawn.values[:, None] - train.values[None]).abs()  # [30, 50, T, C]
    found_NATC = offset < 1e-4
    assert (found_NATC.any(1) | ~train.shape.mask).all(), "every number is an anchor's"
    of_one_token = (found_NATC | ~train.shape.mask).all(3).any(1)
    of_one_network = (found_NATC | ~train.shape.mask).all((2, 3)).any(1)
    assert of_one_network.all() == (mode == "joint")
    assert of_one_token[:, :3].all() == (mode != "individual")
    assert not drawn.values[:, ~train.shape.mask].any()


def test_every_anchor_is_drawn_equally_often():
    train = sequences(4)
    drawn = fit(train, mode="token", bandwidth=1e-6).sample(2000, seed=1)
    nearest = (drawn.values[:, None] - train.values[None]).abs().sum(3).argmin(1)  # [2000, T]
    counts = torch.stack([(nearest == a).sum(0) for a in range(4)])
    assert stats.chisquare(counts.numpy()).pvalue.min() > 1e-4


def test_noise_has_the_bandwidth():
    train = vectors(50)
    drawn = fit(train, mode="joint", bandwidth=0.01).sample(2000, seed=1).values
    anchor = (drawn[:, None] - train.values[None]).square().sum(2).argmin(1)
    noise = (drawn - train.values[anchor]).double()
    assert noise.std().item() == pytest.approx(0.01, rel=0.05)
    assert stats.kstest(noise[:, 0] / 0.01, "norm").pvalue > 1e-3
    relative = fit(train, mode="joint", bandwidth=0.01, relative=True).sample(2000, seed=1).values
    ratio = (relative - train.values[anchor]) / (drawn - train.values[anchor])
    deviation = train.values.std(0, correction=0)
    torch.testing.assert_close(ratio.median(0).values, deviation, rtol=1e-3, atol=0)


def test_a_gaussian_has_its_mean_and_deviation():
    drawn = fit(sequences(3), mode="gaussian", mean=2.0, sigma=10.0).sample(3000, seed=0)
    numbers = drawn.flatten().double()
    assert numbers.mean().item() == pytest.approx(2.0, abs=5 * 10 / np.sqrt(30_000))
    assert numbers.std().item() == pytest.approx(10.0, rel=0.03)
    assert not drawn.values[:, ~drawn.shape.mask].any()


@pytest.mark.parametrize("mode", [*MODES, "gaussian"])
def test_saved_and_loaded_draws_the_same(tmp_path, mode):
    kde = fit(sequences(12), mode=mode, **({} if mode == "gaussian" else {"anchors": 5}))
    kde.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Kde.files)
    loaded, drawn = Kde.load(tmp_path), kde.sample(6, seed=2)
    assert torch.equal(loaded.sample(6, seed=2).values, drawn.values)
    assert torch.equal(loaded.sample(2, seed=2, first=3).values, drawn.values[3:5])
    assert not torch.equal(loaded.sample(6, seed=3).values, drawn.values)
    assert torch.equal(loaded.log_prob(drawn), kde.log_prob(drawn))
    assert loaded.sample(1, 0).shape.layout == "layout" and loaded.config == kde.config


def test_vectors_and_relative_widths_are_saved(tmp_path):
    kde = fit(vectors(12), mode="joint", relative=True)
    kde.save(tmp_path)
    assert torch.equal(Kde.load(tmp_path).sample(3, 1).values, kde.sample(3, 1).values)


def test_some_anchors_are_chosen_by_the_seed():
    train = sequences(20)
    chosen = fit(train, anchors=6)
    anchors = chosen.values_NTC[chosen.rows_A]
    assert len(anchors.unique(dim=0)) == 6
    assert (anchors[:, None] == train.values[None]).all((2, 3)).any(1).all()
    assert torch.equal(chosen.rows_A, fit(train, anchors=6).rows_A)
    assert not torch.equal(chosen.rows_A, fit(train, anchors=6, seed=1).rows_A)


def test_anchors_are_not_copied():
    train = sequences(20)
    kde = fit(train)
    assert kde.values_NTC.data_ptr() == train.values.data_ptr()


def test_the_likelihood_of_held_out_codes_is_measured(monkeypatch):
    train, val = sequences(9), sequences(5, seed=1)
    kde = Kde(KdeConfig())
    fitted = kde.fit(train, val)
    assert (fitted.anchors, fitted.val_networks) == (9, 5)
    assert fitted.val_log_likelihood == pytest.approx(kde.log_prob(val).mean().item())
    monkeypatch.setattr(module, "_VAL_DIFFERENCES", 9 * 12 * 2)
    assert kde.fit(train, val).val_networks == 2
    none = kde.fit(train, sequences(0))
    assert (none.val_log_likelihood, none.val_networks) == (None, 0)


def test_other_anchors_have_the_same_noise():
    train, other = sequences(30), sequences(3, seed=1)
    kde = fit(train, mode="joint", relative=True)
    moved = kde.with_anchors(other)
    assert torch.equal(moved.width_TC, kde.width_TC)
    drawn = moved.sample(500, seed=0)
    nearest = (drawn.values[:, None] - other.values[None]).square().sum((2, 3)).min(1).values
    width = (kde.width_TC[train.shape.mask].square().sum()).sqrt()
    assert nearest.sqrt().max() < 3 * width
    with pytest.raises(ConfigError, match="gaussian' has no anchors to replace"):
        fit(train, mode="gaussian").with_anchors(other)
    with pytest.raises(ShapeMismatch, match="do not match"):
        kde.with_anchors(sequences(3, num_tokens=5))


def test_bad_codes_are_refused():
    with pytest.raises(ConfigError, match="mode = 'token', but these codes are vectors"):
        fit(vectors(4))
    with pytest.raises(TooFewNetworks, match="anchors = 9, but 4 training networks"):
        fit(sequences(4), anchors=9)
    with pytest.raises(TooFewNetworks, match="anchors = all, but 0 training networks"):
        fit(sequences(0))
    with pytest.raises(TooFewNetworks, match="the 1 anchors do not differ"):
        fit(sequences(1), relative=True)
    with pytest.raises(ShapeMismatch, match=r"\[4, 2, 3\] are not vectors"):
        fit(vector_codes(torch.zeros(4, 2, 3)), mode="joint")
    with pytest.raises(ShapeMismatch, match="7 numbers and layout layout do not match codes of 6"):
        fit(vectors(4), mode="joint").log_prob(vectors(3, 7))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sigma": 3.0}, "sigma = 3.0: no effect, as the noise of mode = token"),
        (
            {"mode": "gaussian", "anchors": 3},
            "anchors = 3: no effect, as mode = gaussian has no anchors",
        ),
        ({"bandwidth": 0}, "bandwidth = 0: allowed is above 0"),
    ],
)
def test_settings_without_effect_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        build(KdeConfig, settings, source="file.yaml")


def test_damaged_files_are_named(tmp_path):
    fit(sequences(5)).save(tmp_path)
    anchors = tmp_path / "anchors.npy"
    whole = anchors.read_bytes()
    anchors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptCheckpoint, match=r"anchors\.npy is damaged"):
        Kde.load(tmp_path)
