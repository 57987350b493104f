"""One entry is enough for a column, and for a baseline: against tables and figures by hand."""

from typing import get_args, get_type_hints

import numpy as np
import pytest

from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure.baselines import FAMILIES, Baseline, Family
from dwf.evaluation.report import report
from dwf.evaluation.report.columns import COLUMNS, Column, cells, headings, how_to_read, shown
from dwf.evaluation.report.drawing import TWO_COLUMNS
from dwf.evaluation.report.figures import novelty_against_accuracy
from dwf.evaluation.report.sets import MEASURES
from dwf.evaluation.stage import evaluate
from dwf.sweeps.config import SweepConfig
from dwf.sweeps.trial import SCORES, summarise
from tests.pages import read_page

QUICK = {"noise": (0.03,), "averages": (2,), "count": 6}


def made(zoo, *samples):
    config = EvaluateConfig(zoo.name, tuple(one.name for one in samples), **QUICK)
    return evaluate(config, zoo.path.parent.parent, name="r")


def test_headings_cells_and_words_are_those_of_the_columns():
    table = (
        Column("n", str),
        Column("{split} square", lambda n: str(n * n), words="It follows from n.", follows=1),
        Column("half", lambda n: str(n / 2), words="Half of n."),
    )
    assert headings(table, "val") == ("n", "val square", "half")
    assert cells(table, [2, 3]) == [("2", "4", "1.0"), ("3", "9", "1.5")]
    assert how_to_read(table) == ("Half of n.", "It follows from n.")
    odd = Column("odd", lambda n: "odd" if n % 2 else "", is_optional=True)
    assert shown((*table, odd), [2, 4]) == table and shown((*table, odd), [2, 3])[-1] is odd


def test_every_table_is_as_wide_as_its_heading(zoo):
    found = made(zoo)
    assert {len(row) for row in found.table} == {len(found.columns)} == {len(COLUMNS) - 1}
    assert {len(row) for row in found.tests_table} == {len(found.tests_columns)}
    assert "learnt from" not in found.columns, "all generators learnt from all networks"


def test_a_column_is_one_entry(zoo, monkeypatch):
    reach = Column("reach", lambda one: f"{one.figure('reach'):.3f}", words="Reach is how far out.")
    monkeypatch.setattr(report, "COLUMNS", (*COLUMNS, reach))
    found = made(zoo)
    folder = zoo.path.parent.parent / "reports" / "r"
    markdown, html = (folder / "report.md").read_text(), read_page(folder / "report.html")
    assert found.columns[-1] == "reach" and "- Reach is how far out." in markdown
    for one, row in zip(found.sets, found.table, strict=True):
        cell = f"{np.median(one.networks['reach']):.3f}"
        assert row[-1] == cell and f" | {cell} |" in markdown and f"<td>{cell}</td>" in html
    head = '<th><abbr title="Reach is how far out.">reach</abbr></th>'
    assert head in html and "<li>Reach is how far out.</li>" in html


def test_a_new_family_of_baselines_is_one_entry(zoo, write_samples, monkeypatch):
    def first_networks(config, num_training):
        return [Baseline("the first networks", np.eye(num_training)[: config.count])]

    monkeypatch.setitem(
        FAMILIES, "first", Family("the first ones", "#123456", marker="h", draws=(first_networks,))
    )
    found = made(zoo, write_samples("s", zoo.read(zoo.rows("test", "last"))))
    (first,) = found.of("first")
    assert first.title == "the first networks" and first.is_baseline
    assert first.networks["distance"] == [0] * 6 and first.mark == "copying"
    assert first.networks["nearest"] == [100, 101, 102, 103, 104, 105]
    labels = [
        text.get_text() for text in novelty_against_accuracy(found, TWO_COLUMNS).legends[0].texts
    ]
    assert "the first ones" in labels and "Gaussians" in labels
    assert "the first networks" in (zoo.path.parent.parent / "reports/r/report.html").read_text()


def test_figures_that_stand_for_a_set_are_means_and_medians_of_its_networks(zoo):
    for one in made(zoo).sets:
        for measure in MEASURES:
            key = measure.key.format(split="test")
            expected = {"mean": np.mean, "median": np.median}[measure.figure](one.networks[key])
            assert one.figure(key) == pytest.approx(expected, abs=1e-12)
        assert one.figure("good_and_novel") == np.mean(one.networks["good_and_novel"])


def test_a_sweep_is_judged_by_figures_of_the_report(zoo):
    one = made(zoo).sets[0]
    metrics = set(get_args(get_type_hints(SweepConfig)["metric"])) - {"val_accuracy", "val_loss"}
    assert metrics == set(SCORES)
    kept = summarise(one)
    assert kept["n"] == one.n and kept["test_accuracy"] == one.summary["test_accuracy"]["mean"]
    assert kept["test_accuracy_std"] == one.summary["test_accuracy"]["std"]
    assert all(kept[name] == one.figure(name) for name in SCORES)
