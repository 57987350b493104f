"""Verdicts against what was published, by hand; a table survives the disk."""

import re

import pytest

from dwf.audit.config import PublishedConfig
from dwf.audit.table import AuditReport, Failure, Line, sentences
from dwf.evaluation.report.sets import NetworkSet


def a_set(title: str, family: str, mean: float, std: float = 0.01, n: int = 100, **said):
    """A set of networks around an accuracy; `said` goes into its summary."""
    statistics = dict.fromkeys(("mean", "median", "min", "max"), mean) | {"std": std}
    ratio = dict.fromkeys(("mean", "median", "min", "max"), 1.0) | {"std": 0.1}
    names = ("behaviour_ratio", "units_ratio", "overlap", "distance_ratio")
    summary = {"n": n, "test_accuracy": statistics} | dict.fromkeys(names, ratio)
    summary |= {"good_and_novel": 0.0, "dispersion": 1.0} | said
    networks = {"test_accuracy": [mean] * n, "distance_ratio": [1.0] * n}
    return NetworkSet(title, family, summary=summary, networks=networks)


ORIGINALS = a_set("originals (training)", "originals", 0.96, std=0.0)
PUBLISHED = PublishedConfig(
    0.90, originals=0.95, networks="MLPs", source="a paper"
)  # 5 points below


@pytest.mark.parametrize(
    ("accuracy", "steps", "verdict"),
    [
        (0.92, 10, "reached"),
        (0.9099, 10, "reached"),  # 5.01 points below: within 1.96 x 0.01 / sqrt 100
        (0.907, 10, "under budget"),  # 5.3 points below
        (0.907, 100, "below"),
        (0.99, 10, "reached"),
    ],
)
def test_a_row_is_held_against_how_far_the_published_one_stayed_below(accuracy, steps, verdict):
    one = a_set("row", "samples", accuracy)
    line = Line("z", one, steps={"density": steps}, full_steps={"density": 100})
    assert line.judged(PUBLISHED, ORIGINALS).verdict == verdict
    assert line.judged(None, ORIGINALS) == line


def test_a_table_that_is_read_is_the_one_that_was_written(tmp_path):
    mark = {"mark": {"name": "noise", "why": "so."}}
    profile = {
        "far": {"1": 0.5, "1.5": 0.25, "2": 0.0, "3": 0.0},
        "bars": {
            name: {"accuracy": 0.9, "share": 0.125}
            for name in ("mean - 1 std", "mean - 2 std", "mean - 4 std", "fixed")
        },
        "disagreement": {"set": 0.04, "zoo": 0.05},
        "effective_rank": {"set": 11.0, "zoo": 12.5},
        "spread": [1.0, None],
    }
    row = Line(
        "z", a_set("row", "samples", 0.9, profile=profile, **mark), {"density": 5}, {"density": 9}
    )
    arm = Line("z", a_set("average of 2", "average", 0.5, good_and_novel=0.25, **mark))
    lines = (Line("z", ORIGINALS), row.judged(PUBLISHED, ORIGINALS), arm)
    said = sentences("z", lines)
    assert said[0].startswith(
        "z, 1 row by their marks: noise: row. The best null arm is average of 2, 25 %"
    )
    assert said[1].startswith("z, under budget: row.")
    failed = (Failure("z", "other", "too few networks"),)
    made = AuditReport("a", {"budget_minutes": 1.0}, lines=lines, failed=failed, headline=said)
    made.save(tmp_path)
    assert AuditReport.load(tmp_path) == made
    text = (tmp_path / "audit.md").read_text()
    assert "| row | density 5 | density 9 | 90 of 95 % on MLPs | a paper | under budget |" in text
    without = re.sub(r" \[[^\]]*\]", "", text)  # intervals
    assert "| row | 100 | 50.0 % | 25.0 % | 0.0 % | 0.0 % | 12.5 % |" in without
    assert "| 0.040 (0.050) | 11.000 (12.500) |" in text
