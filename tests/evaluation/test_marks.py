"""Each known kind of set has its mark: by hand, and on real networks."""

import itertools

import numpy as np
import pytest

from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure.limits import DRAWN_IN, HALF_WAY, NEAR_COPY, Limits, Novelty
from dwf.evaluation.report.marks import MARKS, exceeds, mark
from dwf.evaluation.report.sets import NetworkSet, plain, statistics
from dwf.evaluation.stage import evaluate

LIMITS = Limits(
    accuracy=0.95,
    distance=1.8,
    unit=2.0,
    behaviour=0.3,
    behaviour_unit=0.4,
    units=(0.6, 0.0),
    units_unit=(0.8, 0.0),
    layers=("a", "b"),
)


def one(
    title="flow",
    family="samples",
    n=100,
    share=0.0,
    accuracy=0.96,
    ratio=1.0,
    copy=0.0,
    average=0.0,
    dispersion=1.0,
):
    spread = 0.01 * np.linspace(-1, 1, n)
    summary = {
        "n": n,
        "test_accuracy": statistics(accuracy + spread),
        "distance_ratio": {"median": ratio},
        "behaviour_ratio": {"median": 1.0},
        "units_ratio": {"median": None},
        "reach": {"median": 1.0},
        "dispersion": dispersion,
        "good_and_novel": share,
        "copy": copy,
        "average": average,
    }
    return NetworkSet(title, family, summary=plain(summary), networks={})


BASELINES = (
    one("noise 0.1", "noise", accuracy=0.955, ratio=0.1, copy=1.0),
    one("noise 0.6", "noise", accuracy=0.80, ratio=0.6),
    one("average of 2", "average", accuracy=0.89, ratio=0.62, average=1.0, dispersion=0.71),
    one("average of all 9", "average", n=1, accuracy=0.99, share=1.0, ratio=0.7, average=1.0),
    one("per-weight Gaussian", "gaussian", accuracy=0.30, ratio=1.1),
    one("PCA + Gaussian", "gaussian", accuracy=0.74, ratio=0.95),
)


def name_of(**figures):
    sample = one(**figures)
    return mark(sample, [*BASELINES, sample]).name


@pytest.mark.parametrize(
    ("figures", "name"),
    [
        ({"copy": 1.0, "ratio": 0.02}, "copying"),
        ({"copy": 0.61, "average": 0.39}, "copying"),
        ({"copy": 1.0, "ratio": 1.0, "share": 0.0}, "copying"),  # the same mistakes, far away
        ({"average": 0.61, "copy": 0.39, "accuracy": 0.89, "dispersion": 0.7}, "averaging"),
        ({"copy": 0.5, "average": 0.5}, "undecided"),
        ({"copy": 0.5, "share": 0.48, "ratio": 0.5}, "undecided"),
        ({"copy": 0.4, "share": 0.6}, "undecided"),
        ({"copy": 0.39, "share": 0.6}, "generalising"),
        ({"accuracy": 0.59, "ratio": 1.1}, "noise"),
        ({"accuracy": 0.10, "ratio": 3.0}, "noise"),
        ({"accuracy": 0.741, "ratio": 1.1}, "noise"),  # within the error of PCA + Gaussian's
        ({"accuracy": 0.78, "ratio": 0.55}, "noise"),  # noise 0.6 is as good, and further out
        ({"accuracy": 0.78, "ratio": 0.9}, "undecided"),  # and here it is nearer: no reason
        ({"accuracy": 0.92, "ratio": 1.0, "share": 0.13}, "generalising"),
        ({"accuracy": 0.96, "ratio": 1.0, "share": 0.95}, "generalising"),
        ({"accuracy": 0.96, "ratio": 1.0, "share": 0.03}, "undecided"),
        ({"accuracy": 0.96, "ratio": 1.0, "share": 0.95, "dispersion": 0.69}, "undecided"),
        ({"accuracy": 0.96, "share": 1.0, "n": 1, "dispersion": None}, "undecided"),
    ],
)
def test_the_first_rule_that_holds_gives_the_mark(figures, name):
    assert name_of(**figures) == name


def test_every_set_has_one_mark_and_better_networks_never_lose_theirs():
    shares, accuracies = np.linspace(0, 1, 6), np.linspace(0, 1, 6)
    kinds = [(c, a) for c, a in itertools.product(np.linspace(0, 1, 6), repeat=2) if c + a <= 1]
    order = {"noise": 0, "undecided": 1, "generalising": 2}
    for (copy, average), ratio in itertools.product(kinds, (0.1, 0.6, 1.0)):
        figures = {"copy": copy, "average": average, "ratio": ratio}
        for accuracy in accuracies:
            names = [name_of(share=s, accuracy=accuracy, **figures) for s in shares]
            assert set(names) <= set(MARKS)
            ranks = [order.get(name, -1) for name in names]
            assert ranks == sorted(ranks)
        for share in shares:
            names = [name_of(share=share, accuracy=a, **figures) for a in accuracies]
            ranks = [order.get(name, -1) for name in names]
            assert ranks == sorted(ranks)


def test_baselines_never_generalise_however_good_they_are():
    for family, accuracy, share in itertools.product(
        ("noise", "gaussian", "average", "nearest"), (0.3, 0.99), (0.0, 1.0)
    ):
        best = one("the best", family, accuracy=accuracy, share=share, ratio=2.0)
        assert mark(best, [*BASELINES, best]).name == "noise"


def test_the_reason_gives_the_figures_that_decided():
    def why(**figures):
        sample = one(**figures)
        return mark(sample, [*BASELINES, sample]).why

    assert why(copy=0.8, ratio=0.02).startswith(
        "80 % are copies of training networks or of their units: they lie at"
    )
    assert "0.020 (median)" in why(copy=0.8, ratio=0.02)
    assert "in behaviour at 1.000, in units at no known distance" in why(copy=0.8)
    assert "to 1.00 (median) of" in why(average=0.9)
    assert why(copy=0.5, average=0.3).endswith(
        "50 % are copies, 30 % averages, the others neither."
    )
    noise = why(accuracy=0.59, ratio=1.1)
    assert 'than "PCA + Gaussian" (74.00 % at 0.950)' in noise and "(59.00 %)" in noise
    good = why(accuracy=0.95, share=0.5)
    assert good.endswith("50 % are good and novel (the best baseline: 0 %).")
    assert '(95.00 %) than "PCA + Gaussian" (74.00 %)' in good
    assert "(2 % of 100) is not clearly above the best baseline's (0 %)" in why(share=0.02)
    assert "their spread is only 0.40 of the zoo's" in why(share=0.9, dispersion=0.4)


def test_a_difference_of_shares_counts_above_its_standard_error():
    # Difference 0.1; standard error sqrt(2 * 0.25 / n): 1.96 of them are 0.139 and 0.031.
    assert not exceeds(one(share=0.55), one(share=0.45))
    assert exceeds(one(share=0.55, n=2000), one(share=0.45, n=2000))


def test_few_networks_of_many_are_not_clearly_above_none_of_a_hundred():
    """By Fisher's exact test 4 of 512 against 0 of 100 is p = 0.49, 30 of 512 is p = 0.005."""
    from scipy.stats import fisher_exact

    for good, counts in ((4, False), (30, True)):
        p = fisher_exact([[good, 512 - good], [0, 100]], alternative="greater").pvalue
        assert (p < 0.05) == counts
        assert exceeds(one(share=good / 512, n=512), one(share=0.0)) == counts


def test_each_network_is_a_copy_an_average_or_far():
    cases = [  # ratios of weights, behaviour and units, reach, kind
        (NEAR_COPY - 0.01, 1.0, 1.0, 0.7, "copy"),
        (NEAR_COPY + 0.01, 1.0, 1.0, 0.7, "average"),
        (NEAR_COPY + 0.01, 1.0, 1.0, 1.0, "copy"),
        (HALF_WAY + 0.01, 1.0, 1.0, 1.0, "far"),
        (HALF_WAY + 0.01, 1.0, 1.0, DRAWN_IN - 0.01, "average"),
        (1.0, NEAR_COPY - 0.01, 1.0, 0.1, "copy"),
        (1.0, HALF_WAY - 0.01, 1.0, 1.0, "copy"),
        (1.0, HALF_WAY + 0.01, 1.0, 1.0, "far"),
        (1.0, 1.0, 0.0, 1.0, "copy"),
        (1.0, 1.0, HALF_WAY - 0.01, 0.7, "average"),
        (1.0, 1.0, 1.0, DRAWN_IN, "far"),
        (np.inf, np.nan, np.nan, np.inf, "far"),
    ]
    ratio, behaviour, units, reach = (
        np.array(column, float) for column in list(zip(*cases, strict=True))[:4]
    )
    novelty = Novelty(
        ratio * LIMITS.unit,
        behaviour * LIMITS.behaviour_unit,
        units_SL=np.stack([units * LIMITS.units_unit[0], np.ones(len(units))], 1),
    )
    kinds = LIMITS.kinds(novelty, reach_S=reach)
    found = np.where(kinds["copy"], "copy", np.where(kinds["average"], "average", "far"))
    assert found.tolist() == [kind for *_, kind in cases]
    assert not (kinds["copy"] & kinds["average"]).any()


def test_no_copy_is_novel_whatever_the_limits_and_the_measures():
    stream = np.random.default_rng(0)
    for _ in range(50):
        limit, median = stream.random(4), stream.random(4)
        limits = Limits(
            accuracy=0.0,
            distance=limit[0],
            unit=median[0],
            behaviour=limit[1],
            behaviour_unit=median[1],
            units=tuple(limit[2:]),
            units_unit=tuple(median[2:]),
            layers=("a", "b"),
        )
        measures = stream.random((4, 40))
        novelty = Novelty(measures[0], measures[1], units_SL=measures[2:].T)
        novel = limits.passed(np.ones(40), novelty)["good_and_novel"]
        assert not (novel & limits.kinds(novelty, reach_S=np.ones(40))["copy"]).any()


def test_known_sets_of_real_networks_have_their_marks(zoo, write_samples, monkeypatch):
    """Copies, averages and noise that come as samples, held-out networks, and mixtures."""
    monkeypatch.setattr("dwf.evaluation.stage.draw_figures", lambda *_, **__: {})
    weights_ND = zoo.read(zoo.rows("train", "last")).astype(np.float64)
    held_out_ND = zoo.read(zoo.rows("test", "last"))
    stream = np.random.default_rng(0)
    noise_ND = weights_ND.std(0) * stream.standard_normal(weights_ND.shape)
    shuffled_ND = weights_ND[stream.permutation(30)]
    known = {
        "copied": (weights_ND, "copying"),
        "noisy": (weights_ND + 0.1 * noise_ND, "copying"),
        "averaged": ((weights_ND + shuffled_ND) / 2, "averaging"),
        "leaning": (0.75 * weights_ND + 0.25 * shuffled_ND, "averaging"),
        "gaussian": (weights_ND.mean(0) + noise_ND, "noise"),
        "new": (held_out_ND, "generalising"),
        "half": (np.concatenate([weights_ND[:25], held_out_ND]), "undecided"),
        "mostly": (np.concatenate([weights_ND[:5], held_out_ND]), "generalising"),
    }
    for name, (samples_ND, _) in known.items():
        write_samples(name, samples_ND)
    config = EvaluateConfig(
        "z", tuple(known), noise=(0.03, 0.1, 1.0), averages=(2, 16, "all"), count=30
    )
    report = evaluate(config, zoo.path.parent.parent, name="r")
    marks = {each.title: each.mark for each in report.sets}
    assert marks["originals (training)"] == "-"
    assert marks["held-out networks"] == "generalising"
    for name, (_, wanted) in known.items():
        assert marks[name] == wanted, name
        assert marks[f"nearest originals of {name}"] == "copying"
    for scale, wanted in (("0.03", "copying"), ("0.1", "copying"), ("1", "noise")):
        assert marks[f"a network + noise of {scale} std"] == wanted
    for k in ("2", "16", "all 30"):
        assert marks[f"average of {k}"] == "averaging"
    assert marks["per-weight Gaussian"] == marks["PCA + Gaussian"] == "noise"
    reach_S = np.linalg.norm(held_out_ND - weights_ND.mean(0), axis=1)
    own_N = np.linalg.norm(weights_ND - weights_ND.mean(0), axis=1)
    held_out = next(each for each in report.sets if each.title == "held-out networks")
    np.testing.assert_allclose(held_out.values("reach"), reach_S / np.median(own_N), rtol=1e-9)
