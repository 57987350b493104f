"""A report in Python: its tables and figure against the numbers that it holds; seconds."""

import matplotlib
import numpy as np
import pytest

from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.report import Report
from dwf.evaluation.stage import evaluate

matplotlib.use("Agg")


@pytest.fixture
def report(zoo, fresh_rows, write_samples, no_figures) -> Report:
    fresh, root = write_samples("fresh", fresh_rows[:20]), zoo.path.parent.parent
    config = EvaluateConfig(zoo.name, [fresh.name], noise=[0.03], averages=[], count=8)
    evaluate(config, str(root), name="r")
    return Report.load(str(root / "reports" / "r"))


def test_a_report_is_told_in_a_line_and_shown_as_its_table(report):
    (drawn,) = report.of("samples")
    told = f"{drawn.title}: {100 * drawn.share:.1f} % good and novel"
    assert repr(report) == f"Report('r': {len(report.sets)} sets; {told})"
    shown = report._repr_html_()
    assert shown.count("<tr>") == len(report.sets) + 1 and drawn.title in shown


def test_a_reports_sets_are_a_table(report):
    table = report.to_dataframe()
    assert table.set.tolist() == [one.title for one in report.sets]
    assert table["n"].tolist() == [one.n for one in report.sets]
    means = [np.mean(one.networks["test_accuracy"]) for one in report.sets]
    assert table["test_accuracy.mean"].to_numpy() == pytest.approx(means)
    assert table["good_and_novel"].tolist() == [one.share for one in report.sets]


def test_a_reports_networks_are_a_table(report):
    table = report.to_dataframe("networks")
    assert len(table) == sum(one.n for one in report.sets)
    for one in report.sets:
        mine = table[table.set == one.title]
        assert mine.test_accuracy.tolist() == one.networks["test_accuracy"]
        assert mine[["map_1", "map_2"]].to_numpy() == pytest.approx(np.array(one.networks["map"]))
    with pytest.raises(ConfigError, match="of = 'rows': expected one of sets, networks"):
        report.to_dataframe("rows")


def test_novelty_is_drawn_into_axes(report):
    from matplotlib import pyplot

    axes = pyplot.figure().subplots()
    assert report.plot_novelty(axes) is axes
    dots = [each.get_offsets() for each in axes.collections if len(each.get_offsets()) > 1]
    assert sum(map(len, dots)) == sum(one.n for one in report.sets)
    (drawn,) = report.of("samples")
    found = [each for each in dots if len(each) == drawn.n]
    assert any(np.allclose(each[:, 0], drawn.values("distance_ratio")) for each in found)
    own = report.plot_novelty()
    assert own is not axes and own.get_legend() is not None
    pyplot.close("all")
