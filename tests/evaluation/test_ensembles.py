"""Ensembles of networks, and samples that were selected, in a report."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.evaluation.config import BatchNormConfig, EvaluateConfig
from dwf.evaluation.measure.ensembles import SumInOrder, draw_members, ensemble_size, vote_accuracy
from dwf.evaluation.measure.scoring import Scorer
from dwf.evaluation.report.report import _on_selection
from dwf.evaluation.stage import evaluate
from dwf.networks.config import CNNConfig
from dwf.networks.functional import build_network
from dwf.randomness import seeded
from dwf.zoo.layout import Layout
from tests.pages import read_page

pytestmark = pytest.mark.usefixtures("no_figures")

ACCURACIES = {"val_accuracy_drawn": [0.5, 0.705], "val_accuracy_kept": 0.9}
QUICK = {"noise": (0.03,), "averages": (2,), "count": 5}


def root_of(zoo):
    return zoo.path.parent.parent


def training_weights(zoo):
    return zoo.read(zoo.rows("train", "last"))


def plain_ensemble(zoo, weights_ND) -> float:
    """Accuracy of the mean of logits, one network after the other, by plain torch."""
    data, network, logits = zoo.load_data(), zoo.build_network(), []
    images, labels = data.test.batch(torch.arange(len(data.test)))
    for row_D in weights_ND:
        network.load_state_dict(zoo.layout.unflatten(torch.from_numpy(row_D)))
        with torch.no_grad():
            logits.append(network(data.prepare(images)))
    return (torch.stack(logits).mean(0).argmax(1) == labels).double().mean().item()


def test_the_smallest_set_that_is_large_enough_gives_the_size():
    assert ensemble_size([30, 25, 4, 100]) == 25 and ensemble_size([4, 1]) == 0
    assert draw_members(4, 25) is None and draw_members(30, 0) is None
    assert draw_members(25, 25).all()
    drawn_S = draw_members(30, 25)
    assert drawn_S.sum() == 25 and not drawn_S[:25].all()  # who comes first may be the best
    np.testing.assert_array_equal(drawn_S, draw_members(30, 25))


def test_a_report_says_how_good_ensembles_of_one_size_are(zoo, write_samples):
    noise_ND = np.random.default_rng(0).standard_normal((40, zoo.layout.size))
    weights_ND = training_weights(zoo)[np.arange(40) % 30] + 0.4 * noise_ND.astype(np.float32)
    samples, few = write_samples("s", weights_ND), write_samples("few", weights_ND[:3])
    config = EvaluateConfig(zoo.name, ("s", "few"), **QUICK)
    report = evaluate(config, root_of(zoo), name="r")
    found = {one.title: one.summary["ensemble"] for one in report.sets if "ensemble" in one.summary}
    assert list(found) == ["originals (training)", "held-out networks", "s"]
    assert {each["n"] for each in found.values()} == {25}
    held_out = zoo.read(zoo.rows("test", "last"))
    for title, rows_ND in (
        ("originals (training)", training_weights(zoo)[draw_members(30, 25)]),
        ("held-out networks", held_out),
        ("s", samples.read()[draw_members(40, 25)]),
    ):
        assert found[title]["accuracy"] == pytest.approx(plain_ensemble(zoo, rows_ND), abs=1e-12)
    alone = next(one for one in report.sets if one.title == "s").summary["test_accuracy"]["mean"]
    assert found["s"]["accuracy"] > alone + 0.02
    (note,) = report.notes
    said = f"s {100 * found['s']['accuracy']:.2f} %"
    assert "ensembles of 25 networks each" in note and said in note and "few" not in note
    folder = root_of(zoo) / "reports" / "r"
    for file in ("report.md", "report.html"):
        assert note in read_page(folder / file)
    assert few.name in [one.title for one in report.sets]


def test_selected_samples_say_how_many_were_drawn(zoo, write_samples):
    weights_ND = training_weights(zoo)[:10]
    chosen = {"kind": "bootstrap", "drawn": 120, "kept": 10, "rounds": 3}
    write_samples("s", weights_ND, selection=chosen)
    write_samples("plain", weights_ND, selection=None)
    report = evaluate(EvaluateConfig(zoo.name, ("s", "plain"), **QUICK), root_of(zoo), name="r")
    cells = [row[0] for row in report.table]
    assert "s (12 drawn for each one kept)" in cells and "plain" in cells
    assert report.headline[0].startswith(
        "s: copying. 0 % of the 10 networks of s (12 drawn for each one kept) are good and novel"
    )
    assert report.notes[-1] == (
        "s is a selection (bootstrap): 10 networks were kept of 120 that were drawn in 3 rounds, "
        "the most accurate on validation images."
    )
    told = _on_selection("s", chosen | {"unusable": 4, "rounds": 1} | ACCURACIES)
    assert "that were drawn (4 of them unusable), the most accurate on validation images" in told
    assert told.endswith("these is 50.00 %, 70.50 % of all drawn, 90.00 % of the kept.")
    markdown = (root_of(zoo) / "reports" / "r" / "report.md").read_text()
    assert report.notes[-1] in markdown and "s (12 drawn for each one kept)" in markdown


def test_samples_drawn_on_a_condition_say_so(zoo, write_samples):
    weights_ND = training_weights(zoo)[:10]
    chosen = {"kind": "bootstrap", "drawn": 40, "kept": 10}
    each = {name: {"condition": {"val_accuracy": v}} for name, v in (("asked", 0.95), ("both", 0))}
    write_samples("asked", weights_ND, **each["asked"], guidance=2.0)
    write_samples("both", weights_ND, **each["both"], guidance=1.0, selection=chosen)
    write_samples("plain", weights_ND)
    config = EvaluateConfig(zoo.name, ("asked", "both", "plain"), **QUICK)
    report = evaluate(config, root_of(zoo), name="r")
    cells = [row[0] for row in report.table]
    assert "asked (asked for val_accuracy=0.95)" in cells and "plain" in cells
    assert "both (asked for val_accuracy=0, 4 drawn for each one kept)" in cells
    (asked, both, selected) = report.notes[-3:]
    assert asked.startswith(
        "asked was drawn on conditions: val_accuracy=0.95, with a guidance of 2. That is a part"
    )
    assert both.startswith("both was drawn") and selected.startswith("both is a selection")
    assert asked in (root_of(zoo) / "reports" / "r" / "report.md").read_text()


def test_networks_scored_side_by_side_vote_as_in_a_loop():
    config = CNNConfig(channels=(4,), input=(1, 8, 8), pools=2, paddings=1, head="average")
    with seeded(0, "votes"):
        networks = [build_network(config) for _ in range(7)]
    layout, data = Layout.of(networks[0]), load_dataset(DataConfig(kind="digits"))
    weights_ND = torch.stack([layout.flatten(one.state_dict()) for one in networks]).numpy()
    voting = np.array([True, False, True, True, True, False, True])
    fixed = {
        "data": data,
        "split": "test",
        "config": BatchNormConfig(),
        "template_D": weights_ND[0],
    }
    found = [
        Scorer(networks[0], layout, **fixed, workers=workers, keep_answers=True).score(
            weights_ND, voting_B=voting
        )
        for workers in (1, 3)
    ]
    images, labels = data.test.batch(torch.arange(len(data.test)))
    with torch.no_grad():
        logits = torch.stack(
            [build(config, layout, row_D=row)(data.prepare(images)) for row in weights_ND]
        )
    np.testing.assert_array_equal(found[0]["votes_MK"], found[1]["votes_MK"])
    np.testing.assert_allclose(found[0]["votes_MK"], logits[voting].double().sum(0), atol=1e-4)
    np.testing.assert_array_equal(found[0]["answers_SM"], logits.argmax(2))
    np.testing.assert_array_equal(found[0]["wrong_SM"], found[0]["answers_SM"] != labels.numpy())
    none = Scorer(networks[0], layout, **fixed).score(weights_ND)
    assert "votes_MK" not in none and "answers_SM" not in none


def build(config, layout, row_D):
    network = build_network(config)
    network.load_state_dict(layout.unflatten(torch.from_numpy(row_D)))
    return network


def test_a_network_that_overflows_takes_its_ensemble_with_it(zoo, write_samples):
    weights_ND = training_weights(zoo)[:6].copy()
    weights_ND[4] = 3e38
    write_samples("broken", weights_ND)
    report = evaluate(
        replace(EvaluateConfig(zoo.name, ("broken",)), **QUICK), root_of(zoo), name="r"
    )
    (broken,) = report.of("samples")
    assert broken.summary["ensemble"] == {"n": 6, "accuracy": 0.0}


def test_votes_that_are_not_finite_are_wrong():
    votes_MK = np.array([[1.0, 2], [2, 1], [np.nan, 1], [np.inf, 1]])
    assert vote_accuracy(votes_MK, np.array([1, 1, 1, 0])) == 0.25


def test_a_sum_does_not_depend_on_who_is_there_first():
    terms = [np.array([1e16]), None, np.array([1.0]), np.array([-1e16])]
    for order in itertools.permutations(range(4)):
        total = SumInOrder()
        for index in order:
            total.add(index, terms[index])
        assert total.total == (1e16 + 1.0) - 1e16 and not total._early
