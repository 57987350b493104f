"""Curves of a sweep over numbers: what is drawn where, and what the tables say."""

import math
import re

import numpy as np
import pytest
from scipy.stats import norm

from dwf.evaluation.report import share_interval
from dwf.evaluation.report.drawing import TWO_COLUMNS
from dwf.sweeps.curves import curves_figure, curves_text, write_curves
from dwf.sweeps.grids import Grid, best_baseline, held_out
from dwf.sweeps.report import SweepReport

COUNT, STEPS, FILES = "zoo.count", "generator.density.training.steps", "generator"
SIZES, LENGTHS = (40, 160), (100, 300, 900)
NAMES = ("configs/generator/one.yaml", "configs/generator/other.yaml")


def reference(title, family, n, share):
    accuracy = {"test_accuracy": 0.9, "test_accuracy_std": None if n == 1 else 0.01}
    known = {"good_and_novel": share, "distance_ratio": 1.0, "overlap": 0.5, "dispersion": 1.0}
    return {"title": title, "family": family, "n": n, "mark": "noise"} | accuracy | known


def share_of(size, steps, name):
    """A number that tells them all apart."""
    return (SIZES.index(size) * 30 + LENGTHS.index(steps) * 10 + NAMES.index(name) * 3) / 100


def made(without=(), sizes=SIZES) -> SweepReport:
    """Two sizes, three lengths, two settings files; trials numbered `without` have failed."""
    rows = []
    for size in sizes:
        for name in NAMES:
            for steps in LENGTHS:
                row = {"trial": len(rows), COUNT: size, FILES: name, STEPS: steps}
                if len(rows) in without:
                    rows.append(row | {"state": "failed", "n": None})
                    continue
                share = share_of(size, steps, name=name)
                tested = {"test_good_and_novel": share, "test_distance_ratio": 0.5}
                tested["test_mark"] = "generalising" if share > 0.3 else "copying"
                tested |= {"test_accuracy": 0.95, "test_accuracy_std": 0.01}
                tested |= {"train_networks": size * 4 // 5, "report": f"test-{size}"}
                rows.append(row | {"state": "finished", "n": 200} | tested)
    references = {
        f"test-{size}": (
            reference("held-out networks", "held-out", n=4, share=0.75),
            reference("average of 2", "average", n=100, share=0.02),
            reference(f"average of all {size * 4 // 5}", "average", n=1, share=1.0),
            reference("per-weight Gaussian", "gaussian", n=100, share=0.01),
        )
        for size in sizes
    }
    axes = (COUNT, FILES, STEPS)
    fixed = {"metric": "good_and_novel", "best": 0, "reports": tuple(references)}
    return SweepReport("study", axes=axes, rows=tuple(rows), references=references, **fixed)


def test_an_interval_holds_the_shares_that_a_test_would_not_refuse():
    """Wilson's ends solve |share - p| = z sqrt(p (1 - p) / n)."""
    z = norm.ppf(0.975)
    for share, n in ((0.5, 10), (0.96, 512), (0.0, 100), (1.0, 7)):
        p = np.linspace(0, 1, 200_001)
        inside = p[np.abs(share - p) <= z * np.sqrt(p * (1 - p) / n) + 1e-12]
        assert share_interval(share, n) == pytest.approx((inside.min(), inside.max()), abs=2e-5)


def test_curves_are_drawn_along_each_number_the_others_at_their_largest():
    grid = Grid.of(made())
    assert (grid.numbers, grid.lines) == ((COUNT, STEPS), FILES)
    size, length = curves_figure(grid, TWO_COLUMNS).axes
    for panel, places, points in (
        (size, [32, 128], [(at, 900) for at in SIZES]),
        (length, list(LENGTHS), [(160, at) for at in LENGTHS]),
    ):
        drawn = {c.get_label(): c.lines[0].get_xydata() for c in panel.containers}
        assert set(drawn) == {"one", "other", "held-out networks", "best baseline"}
        for name in NAMES:
            label = "one" if name == NAMES[0] else "other"
            expected = [(x, 100 * share_of(*p, name)) for x, p in zip(places, points, strict=True)]
            np.testing.assert_allclose(drawn[label], expected)
        np.testing.assert_allclose(drawn["held-out networks"][:, 1], 75)
        np.testing.assert_allclose(drawn["best baseline"][:, 1], 2)
    assert size.get_title() == "at steps 900" and length.get_title() == "at training networks 128"
    assert size.get_xscale() == "log"


def test_error_bars_are_the_intervals():
    panel = curves_figure(Grid.of(made()), TWO_COLUMNS).axes[0]
    (one,) = (c for c in panel.containers if c.get_label() == "one")
    (bars,) = one.lines[2]
    for segment, size in zip(bars.get_segments(), SIZES, strict=True):
        ends = share_interval(share_of(size, 900, name=NAMES[0]), 200)
        np.testing.assert_allclose(segment[:, 1], [100 * end for end in ends])


def test_the_baseline_that_counts_has_more_than_one_network():
    references = made().references["test-40"]
    assert best_baseline(references)["title"] == "average of 2"
    assert held_out(references)["n"] == 4 and held_out(references[1:]) is None


def test_tables_hold_every_trial_and_reference():
    text = curves_text(Grid.of(made(without=[5])))
    first = text.split("## ")[1]
    assert "| generator | steps | 32 | 128 |" in first
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in first.splitlines()]
    rows = {(row[0], row[1]): row[2:] for row in cells if len(row) == 4}
    for name in ("one", "other"):
        for steps in LENGTHS:
            shares = [
                share_of(size, steps, name=f"configs/generator/{name}.yaml") for size in SIZES
            ]
            said = [float(cell.split()[0]) for cell in rows[name, str(steps)] if cell != "failed"]
            kept = shares if (name, steps) != ("other", 900) else shares[1:]
            assert said == pytest.approx([100 * share for share in kept])
    assert rows["other", "900"][0] == "failed"
    assert rows["average of all", "-"] == ["100.0 (20.7 to 100.0)"] * 2
    assert rows["held-out networks", "-"] == ["75.0 (30.1 to 95.4)"] * 2
    assert "per-weight Gaussian | - | 90.00 +- 1.00 |" in text
    assert re.search(r"one \| 900 \| copying \| generalising \|\n", text)
    assert re.search(r"one \| 100 \| 0\.500 \| 0\.500", text)


def test_what_is_no_grid_over_numbers_has_no_curves(tmp_path):
    whole = made()
    assert write_curves(whole, tmp_path) and (tmp_path / "curves.png").exists()
    repeated = (*whole.rows[:-1], whole.rows[0])
    for rows in (whole.rows[:-1], whole.rows[3:6][:1], repeated):
        report = SweepReport(**vars(whole) | {"rows": rows})
        assert Grid.of(report) is None and not write_curves(report, tmp_path)
    named = SweepReport(**vars(whole) | {"axes": (FILES,)})
    assert Grid.of(named) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_lines_that_learnt_from_different_zoos_have_no_common_references():
    whole = made()
    rows = [dict(row) for row in whole.rows]
    for row in rows:
        row["report"] = "test-40" if row[FILES] == NAMES[0] else "test-160"
    grid = Grid.of(SweepReport(**vars(whole) | {"rows": tuple(rows)}))
    assert grid.references({COUNT: 40, STEPS: 900}) == ()


def test_equal_reports_are_equal_files_and_old_ones_load(tmp_path):
    report = made()
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        report.save(folder)
        assert write_curves(SweepReport.load(folder), folder)
    for file in ("curves.png", "curves.md"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert SweepReport.load(tmp_path / "a") == report
    old = {k: v for k, v in vars(report).items() if k != "references"}
    assert Grid.of(SweepReport(**old)) is None


def test_a_share_that_nobody_has_is_given_an_end_too():
    low, high = share_interval(0.0, 500)
    assert low == 0 and high == pytest.approx(3.84 / 503.84, rel=1e-2)
    assert math.isclose(share_interval(1.0, 500)[1], 1)
