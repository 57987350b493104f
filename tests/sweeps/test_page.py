"""The page of a sweep and its figures: marks beside shares, reports by trial, a colour a line."""

import pytest

from dwf.evaluation.report import Record
from dwf.evaluation.report.drawing import TWO_COLUMNS
from dwf.sweeps.curves import curves_figure
from dwf.sweeps.figures import trials_figure
from dwf.sweeps.grids import Grid
from dwf.sweeps.page import headline, sweep_page
from dwf.sweeps.report import SweepReport, in_short

HIDDEN, ALIGN = "generator.density.backbone.hidden", "align"
RECORD = Record({"cores": 2, "system": "s", "python": "3"}, {})


def made() -> SweepReport:
    """Four trials: aligned ones copy and pass every test, as averages of few networks may."""
    rows = []
    for hidden in (32, 128):
        for align in (True, False):
            tested = {"test_good_and_novel": float(align), "test_distance_ratio": 0.5}
            tested |= {"test_accuracy": 0.95, "test_accuracy_std": 0.01}
            tested |= {"test_mark": "averaging" if align else "noise"}
            tested |= {"report": f"test-{'a' if align else 'b'}", "train_networks": 46}
            judged = {name.replace("test_", "val_"): tested[name] for name in list(tested)[:4]}
            row = {"trial": len(rows), "state": "finished", HIDDEN: hidden, ALIGN: align}
            rows.append(row | {"n": 30, "seconds": 1.0} | judged | tested)
    held = {"title": "held-out networks", "family": "held-out", "n": 4, "mark": "generalising"}
    held |= {"test_accuracy": 0.9, "test_accuracy_std": 0.01, "good_and_novel": 0.5}
    references = {name: (held | {"distance_ratio": 1.0},) for name in ("test-a", "test-b")}
    return SweepReport(
        "study",
        "good_and_novel",
        axes=(HIDDEN, ALIGN),
        best=0,
        rows=tuple(rows),
        reports=tuple(references),
        references=references,
    )


def test_a_share_never_stands_without_the_mark():
    page = sweep_page(made(), RECORD, figures={})
    assert (
        "100.0 % [88.6, 100.0] of its samples are good and novel (mark: averaging)."
        in (headline(made())[0])
    )
    assert page.count('<td class="left">averaging</td>') == 2
    assert page.count('<td class="left">noise</td>') == 2


def test_a_report_is_named_by_its_trials():
    page = sweep_page(made(), RECORD, figures={})
    assert '<a href="reports/test-a/report.html">trials 0, 2</a>' in page
    assert '<a href="reports/test-b/report.html">trials 1, 3</a>' in page


def test_a_line_has_one_colour_in_both_figures():
    figures = (trials_figure(made(), TWO_COLUMNS), curves_figure(Grid.of(made()), TWO_COLUMNS))
    first, second = (
        {
            label: line.lines[0].get_color()
            for line, label in zip(*figure.axes[0].get_legend_handles_labels(), strict=True)
            if label.startswith("align")
        }
        for figure in figures
    )
    assert first == second and len(set(first.values())) == len(first) == 2


@pytest.mark.parametrize(
    ("value", "told"),
    [(True, "true"), (False, "false"), (0.00123456, "0.001235"), ("a/mlp.yaml", "mlp"), (3, "3")],
)
def test_a_value_of_an_axis_is_told_as_settings_files_have_it(value, told):
    assert in_short(value) == told
