"""The headline's sentences, on sets of networks whose numbers are made up."""

from dataclasses import replace

import numpy as np
import pytest

from dwf.evaluation.measure.limits import Limits
from dwf.evaluation.report.headline import headline
from dwf.evaluation.report.sets import NetworkSet, statistics

LIMITS = Limits(
    accuracy=0.95,
    distance=0.9,
    unit=1.0,
    behaviour=0.3,
    behaviour_unit=0.4,
    units=(0.5,),
    units_unit=(0.6,),
    layers=("layers.0",),
)


def one(title, family, share, n=100, accuracy=0.96, ratio=1.0, dispersion=1.0):
    values = accuracy + 0.002 * np.linspace(-1, 1, n)
    summary = {
        "n": n,
        "test_accuracy": statistics(values),
        "distance_ratio": {"median": ratio},
        "dispersion": dispersion,
        "accurate": 1.0,
        "distant": 1.0 if ratio >= 0.9 else 0.0,
        "unlike": 1.0,
        "new_units": 1.0,
        "good_and_novel": share,
    }
    return NetworkSet(title, family, summary=summary, networks={})


def words(sample, baseline_share=0.0, limits=LIMITS, **baseline):
    held_out = one("held-out networks", "held-out", share=0.94)
    other = one(
        "PCA + Gaussian", "gaussian", share=baseline_share, **({"accuracy": 0.3} | baseline)
    )
    return " ".join(headline([held_out, sample, other], limits))


@pytest.mark.parametrize(
    ("share", "baseline", "said"),
    [
        (0.56, 0.0, "it beats every baseline (none has any)"),
        (0.56, 0.12, "it beats every baseline (the best: PCA + Gaussian, 12 %)"),
        (0.15, 0.12, "it is not clearly above the baselines (the best: PCA + Gaussian, 12 %)"),
        (0.03, 0.0, "it is not clearly above the baselines (none has any)"),
        (0.12, 0.12, "it does not beat the baselines (the best: PCA + Gaussian, 12 %)"),
        (0.0, 0.0, "it does not beat the baselines (none has any)"),
    ],
)
def test_says_whether_the_baselines_are_beaten(share, baseline, said):
    text = words(one("flow", "samples", share=share), baseline)
    assert text.startswith(f"{100 * share:g} % of the 100 networks of flow are good and novel")
    assert said in text and "The ceiling: 94 % of 100 held-out networks." in text


def test_begins_with_the_mark_and_says_why():
    flow = one("flow", "samples", share=0.56)
    flow.summary["mark"] = {"name": "generalising", "why": "Because."}
    ceiling = one("held-out networks", "held-out", share=0.94)
    said = headline([ceiling, flow, one("PCA + Gaussian", "gaussian", share=0.0)], LIMITS)
    assert said[0].startswith("flow: generalising. 56 % of the 100 networks of flow are good")
    assert said[1].startswith("Because. Their test accuracy is 96.00 +- 0.12 %")


@pytest.mark.parametrize("name", ["generalising", "noise"])
def test_says_where_marks_cannot_tell_what_generalises(name):
    ceiling = one("held-out networks", "held-out", share=0.94, n=3)
    ceiling.summary["mark"] = {"name": name, "why": "Because."}
    text = " ".join(headline([ceiling, one("PCA + Gaussian", "gaussian", share=0.0)], LIMITS))
    warned = "Held-out networks (3 of them) are marked noise here" in text
    assert warned == (name == "noise")


def test_what_is_noise_is_not_said_twice():
    flow = one("flow", "samples", share=0.0, accuracy=0.3)
    assert "no closer" in words(flow)
    flow.summary["mark"] = {"name": "noise", "why": "Because."}
    assert "no closer" not in words(flow)


def test_names_copies_lost_variety_and_the_baseline_that_is_as_good():
    text = words(
        one("flow", "samples", share=0.0, ratio=0.02, dispersion=0.4), accuracy=0.96, ratio=0.03
    )
    assert "100 % are too close to a training network in their weights" in text
    assert "Their spread is only 0.40 of the zoo's" in text
    assert '"PCA + Gaussian" is as accurate (96.00 %) and no closer (0.030)' in text


def test_a_baseline_that_is_closer_or_less_accurate_is_not_as_good():
    sample = one("flow", "samples", share=0.0, ratio=0.02)
    closer = words(sample, accuracy=0.96, ratio=0.01)
    assert "as accurate" not in closer and "No baseline as far away reaches their acc" in closer
    assert 'the furthest that does is "PCA + Gaussian" (96.00 % at 0.010).' in closer
    worse = words(sample, accuracy=0.95, ratio=0.5)
    assert "as accurate" not in worse and "No baseline reaches their accuracy." in worse


def test_says_where_a_test_tests_nothing_and_what_one_network_does():
    flow = one("flow", "samples", share=0.5)
    text = words(flow, limits=replace(LIMITS, behaviour=0.0, units=(0.0,)))
    assert "are copies of others in behaviour, units of layers.0, which therefore tests" in text
    assert "tests nothing" not in words(flow)
    text = words(flow, limits=replace(LIMITS, distance=None, behaviour=None, units=(None,)))
    assert "are of a single run, so there is no limit of novelty, and nothing is called" in text
    text = words(flow, limits=replace(LIMITS, left_out="1 stream (64)"))
    assert "Units that are not compared: 1 stream (64); there behaviour and weights" in text
    soup = one("average of all 9", "average", share=1.0, n=1)
    sets = [one("flow", "samples", share=0.5), one("PCA + Gaussian", "gaussian", share=0.0), soup]
    text = " ".join(headline(sets, LIMITS))
    assert "beats every baseline" in text
    assert "The one network that is the average of all 9 is good and novel too." in text


def test_without_samples_it_only_gives_the_scale():
    sets = [one("held-out networks", "held-out", share=0.9), one("x", "gaussian", share=0.0)]
    assert headline(sets, LIMITS)[0].startswith("No generated networks were scored")


def test_where_they_lie_is_said_once():
    flow = one("flow", "samples", share=0.0, ratio=0.7)
    flow.summary["mark"] = {"name": "averaging", "why": "They are drawn in."}
    assert "They lie at 0.700 of the zoo's own nearest-neighbour distance" in words(flow)
    flow.summary["mark"]["why"] = (
        "At 0.700 of the zoo's own nearest-neighbour distance they are bad."
    )
    assert words(flow).count("0.700 of the zoo's own") == 1


def test_a_verdict_is_against_baselines_of_the_same_training_networks():
    flow, part = one("flow", "samples", share=0.5), one("part", "samples", share=0.5)
    part.summary["subset"] = "first 9"
    better = one("PCA + Gaussian (first 9)", "gaussian", share=0.9, accuracy=0.3)
    better.summary["subset"] = "first 9"
    sets = [flow, one("PCA + Gaussian", "gaussian", share=0.1, accuracy=0.3), part, better]
    own = {"first 9": replace(LIMITS, units=(0.0,))}
    said = headline(sets, LIMITS, limits_of=own)
    assert (
        "of flow are good and novel: it beats every baseline (the best: PCA + Gaussian, " in said[0]
    )
    assert "of part (learnt from first 9) are good and novel: it does not beat" in said[2]
    assert "the best: PCA + Gaussian (first 9), 90 %" in said[2]
    assert "(of first 9) are copies of others in units of layers.0, which" in said[-1]
    assert len(headline(sets, LIMITS)) == len(said) - 1


def test_says_which_networks_count_as_novel_though_nothing_was_learnt_for_them():
    assert "nothing was learnt count" not in words(one("flow", "samples", share=0.5))
    text = words(one("flow", "samples", share=0.5), 0.12)
    assert "count as good and novel here: PCA + Gaussian (12 %). The limits do not keep" in text
