"""Analyses of a report: against scikit-learn, SciPy, loops over pairs, and networks that are known.

Copies of training networks, fresh networks and networks that answer one class show what each
analysis must find.
"""

import json
from typing import get_args

import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from dwf.evaluation.analyses import chosen
from dwf.evaluation.analyses.classes import _precision_recall, confusion
from dwf.evaluation.analyses.logits import apart
from dwf.evaluation.analyses.material import Material
from dwf.evaluation.analyses.table import ANALYSES
from dwf.evaluation.config import AnalysisName, BatchNormConfig, EvaluateConfig
from dwf.evaluation.measure import Yardstick
from dwf.evaluation.measure.novelty import overlaps
from dwf.evaluation.report.report import Report
from dwf.evaluation.report.sets import NetworkSet
from dwf.evaluation.stage import evaluate

QUICK = {"noise": (0.03,), "averages": (2,), "count": 6}
STREAM = np.random.default_rng(0)


def test_settings_name_the_analyses():
    assert set(get_args(AnalysisName)) == {*ANALYSES, "all"}
    assert chosen(["logits", "reverse"]) == ["reverse", "logits"]
    assert chosen(["all"]) == list(ANALYSES) and chosen([]) == []


# --- single measures ---------------------------------------------------------------------------


def test_confusion_precision_and_recall_are_scikit_learns():
    labels_M = STREAM.integers(4, size=300)
    answers_SM = STREAM.integers(4, size=(7, 300)).astype(np.int16)
    counts_KA = confusion(answers_SM, labels_M, num_classes=4)
    told, truth = answers_SM.ravel(), np.tile(labels_M, 7)
    np.testing.assert_array_equal(counts_KA[:, :-1], confusion_matrix(truth, told))
    assert not counts_KA[:, -1].any()
    found = _precision_recall(counts_KA)
    np.testing.assert_allclose(found, precision_recall_fscore_support(truth, told)[:3])


def test_answers_that_are_none_stand_in_a_column_of_their_own(monkeypatch):
    monkeypatch.setattr("dwf.evaluation.analyses.classes._BLOCK_NUMBERS", 8)  # two networks
    answers_SM = np.array([[0, -1, 1, 1], [1, 1, -1, 0], [0, 0, 0, 0]], np.int16)
    counts_KA = confusion(answers_SM, np.array([0, 0, 1, 1]), num_classes=2)
    np.testing.assert_array_equal(counts_KA, [[3, 2, 1], [3, 2, 1]])


def test_similarity_is_that_of_a_loop_and_two_perfect_networks_are_alike(monkeypatch):
    monkeypatch.setattr("dwf.evaluation.measure.novelty._OVERLAP_ROWS", 3)
    mine_SM, theirs_TM = STREAM.random((8, 50)) < 0.3, STREAM.random((5, 50)) < 0.3
    mine_SM[2] = theirs_TM[4] = False
    found_ST = np.concatenate([shares for _, shares in overlaps(mine_SM, theirs_TM)])
    for s, mine_M in enumerate(mine_SM):
        for t, theirs_M in enumerate(theirs_TM):
            either = (mine_M | theirs_M).sum()
            wanted = (mine_M & theirs_M).sum() / either if either else 1
            assert found_ST[s, t] == wanted
    assert found_ST[2, 4] == 1


@pytest.mark.parametrize("are_same", [False, True])
def test_distances_of_logits_are_those_of_scipy_and_of_a_loop(are_same):
    held_JF = STREAM.standard_normal((6, 40)).astype(np.float32)
    mine_SF = held_JF if are_same else 2 * STREAM.standard_normal((4, 40)).astype(np.float32)
    found = apart(mine_SF, held_JF, are_same=are_same)
    for s, mine_F in enumerate(mine_SF):
        others = [j for j in range(6) if not (are_same and j == s)]
        far = [wasserstein_distance(mine_F, held_JF[j]) for j in others]
        rms = [np.sqrt(np.mean((mine_F.astype(float) - held_JF[j]) ** 2)) for j in others]
        assert found["wasserstein"][s] == pytest.approx(min(far), rel=1e-5)
        assert found["all_wasserstein"][s] == pytest.approx(np.mean(far), rel=1e-5)
        assert found["nearest"][s] == pytest.approx(min(rms), rel=1e-6)
        wanted = mine_F.var() / held_JF.var(1).mean()
        assert found["variance"][s] == pytest.approx(wanted, rel=1e-5)


def test_logits_that_are_not_finite_are_nan_and_the_others_stay():
    held_JF = STREAM.standard_normal((5, 12)).astype(np.float32)
    mine_SF = held_JF[:3].copy()
    mine_SF[1, 4] = np.inf
    found = apart(mine_SF, held_JF)
    np.testing.assert_array_equal(np.isnan(found["nearest"]), [False, True, False])
    np.testing.assert_array_equal(found["nearest"][[0, 2]], 0)
    np.testing.assert_allclose(found["wasserstein"][[0, 2]], 0, atol=1e-7)


# --- whole reports -----------------------------------------------------------------------------


def one_class(zoo, weights_ND):
    """Networks with a bias that is above all logits: every image is of class 3."""
    weights_ND = weights_ND.copy()
    bias = zoo.layout.by_name[list(zoo.layout.by_name)[-1]]
    assert bias.shape == (10,)
    weights_ND[:, bias.offset + 3] += 1e4
    return weights_ND


@pytest.fixture
def looked(monkeypatch):
    """What analyses look at, kept; reports have no other figures."""
    kept: list[Material] = []

    class Kept(Material):
        def __init__(self, *about, **more):
            super().__init__(*about, **more)
            kept.append(self)

    monkeypatch.setattr("dwf.evaluation.stage.Material", Kept)
    monkeypatch.setattr("dwf.evaluation.stage.draw_figures", lambda *_, **__: {})
    return kept


@pytest.fixture
def seen(zoo, write_samples, looked):
    """A report with all analyses, and what they looked at."""
    training_ND = zoo.read(zoo.rows("train", "last"))
    broken_ND = training_ND[:4].copy()
    broken_ND[1] = 3e38
    samples = [
        write_samples("copies", training_ND[:5]),
        write_samples("biased", one_class(zoo, training_ND[5:9])),
        write_samples("broken", broken_ND),
    ]
    names = tuple(one.name for one in samples)
    config = EvaluateConfig(zoo.name, names, analyses=("all",), **QUICK)
    report = evaluate(config, zoo.path.parent.parent, name="r")
    return report, looked[0]


def test_a_report_with_all_analyses_says_what_is_known(seen, zoo):
    report, material = seen
    assert list(report.analyses) == list(ANALYSES)
    _scored_as_the_report(report, material)
    _similar(report)
    _classes(report)
    _logits(report)
    _the_rest(report)
    _written(report, zoo.path.parent.parent / "reports" / "r")


def test_networks_with_batchnorm_are_scored_as_the_report_does(
    batchnorm_zoo, batchnorm_networks, write_batchnorm
):
    """One by one; samples with statistics of their own, as `measure_zoo` has them."""
    samples = write_batchnorm("s", 1.1 * batchnorm_networks[1][:2], batchnorm="generated")
    data, batchnorm = batchnorm_zoo.load_data(), BatchNormConfig(images=100, compare=())
    yardstick = Yardstick(batchnorm_zoo, data, batchnorm=batchnorm)
    originals = NetworkSet("originals", "originals", summary={}, networks={})
    report = Report("r", {}, limits={}, sets=(originals,), headline=())
    material = Material(report, yardstick, samples=[samples], root=samples.path)
    measured = (yardstick.originals, yardstick.measure_zoo(samples, np.arange(2)))
    for one, found in zip(material.scored, measured, strict=True):
        accuracy_S = 1 - material.wrong_SM(one).mean(1)
        np.testing.assert_allclose(accuracy_S, found.accuracy_S, atol=1e-12)


def _scored_as_the_report(report, material):
    """By another way than the report's own accuracies."""
    for one in material.scored:
        accuracy_S = 1 - material.wrong_SM(one).mean(1)
        (row,) = [each for each in report.sets if each.title == one.title]
        np.testing.assert_allclose(accuracy_S, row.accuracy_S, atol=1e-12)
        assert len(one) == row.n


def _similar(report):
    pairs = report.analyses["wrong_answers"].numbers["pairs"]
    own, copies = pairs["originals (training)"], pairs["copies"]["originals (training)"]
    assert copies["n"] == 150 and copies["highest"] == 1
    # Of a set with itself, a network's similarity with itself (1) does not count.
    assert own["originals (training)"]["n"] == 30 * 29
    assert own["originals (training)"]["highest"] < 1
    assert pairs["copies"]["held-out networks"]["mean"] == pytest.approx(
        pairs["held-out networks"]["copies"]["mean"]
    )


def _classes(report):
    found = report.analyses["classes"].numbers["sets"]
    assert found["biased"]["biased"] == found["biased"]["above_half"] == 1
    assert found["biased"]["most_answered"] == 3
    assert found["biased"]["wrong"]["mean"] == 1
    assert found["copies"]["biased"] == 0 and found["broken"]["no_answer"] == 0.25
    assert sum(map(sum, found["broken"]["confusion"])) == 3 * 360
    assert found["biased"]["right"]["n"] + found["biased"]["wrong"]["n"] == 4 * 360
    words = " ".join(report.analyses["classes"].words)
    assert "biased: 100.0 % of its networks" in words and "copies: " not in words


def _logits(report):
    found = report.analyses["logits"].numbers["sets"]
    assert found["copies"]["nearest"]["max"] == 0 and found["broken"]["not_finite"] == 1
    assert found["originals (training)"]["nearest"]["median"] == pytest.approx(1)
    assert found["held-out networks"]["nearest"]["median"] == pytest.approx(1, abs=0.2)


def _the_rest(report):
    assert "the generator flow is not there any more" in " ".join(report.analyses["reverse"].words)
    assert not report.analyses["reverse"].figures
    assert report.analyses["checkpoints"].numbers["copies"]["k"] == 30
    assert "to see an effect of k" in " ".join(report.analyses["checkpoints"].words)
    methods = report.analyses["methods"].numbers
    assert methods["aim"] == "held-out networks"
    assert not np.any(methods["sets"]["held-out networks"]["away"])
    (copies,) = [one for one in report.sets if one.title == "copies"]
    assert methods["sets"]["copies"]["values"][0] == copies.accuracy["mean"]


def _written(report, folder):
    again = Report.load(folder)
    assert again.analyses == report.analyses
    page, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for name, found in report.analyses.items():
        assert found.title == ANALYSES[name].title and f"## {found.title}" in markdown
        for caption, file in found.figures.items():
            assert (folder / file).stat().st_size > 1000
            assert page.count(f'aria-label="{caption}"') == 2, "wide and narrow"
            assert f"]({file})" in markdown
    assert len(list(folder.glob("analysis_*.png"))) == 8


def test_without_analyses_a_report_says_nothing_of_them(zoo, no_figures):
    config = EvaluateConfig(zoo.name, **QUICK)
    evaluate(config, zoo.path.parent.parent, name="r")
    folder = zoo.path.parent.parent / "reports" / "r"
    assert "analyses" not in json.loads((folder / "report.json").read_text())
    assert not list(folder.glob("analysis_*"))
