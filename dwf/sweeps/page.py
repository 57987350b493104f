"""The page of a sweep: every trial, the best one, and the figures over the space.

sweeps/NAME/sweep.html    one page that needs nothing else
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from dwf.evaluation.report import (
    Record,
    accuracy_cell,
    beginning,
    details,
    figure,
    legend,
    number_cell,
    paragraphs,
    share_with_interval,
    table,
    whole_page,
)
from dwf.sweeps.report import Row, SweepReport, in_short, short_names

FILE = "sweep.html"
LEGEND = (
    (
        "validation columns",
        "networks and images by which the best trial, highlighted, was chosen; test columns chose "
        "nothing",
    ),
    (
        "good and novel",
        "share of a trial's samples that are accurate and no copies, in brackets its 95 % interval "
        "(Wilson), which tells of the draw of samples, not of another seed",
    ),
    (
        "distance",
        "of the samples to their nearest training networks (median): 0 is a copy, 1 as far as two "
        "networks that were trained apart",
    ),
    ("state", "finished; stopped early, at which step; or failed, and why"),
)
"""Legend above the table: a word, and what it means."""
EXPLAINED = {
    "Trials over the space": "A point is a trial. Bars: of accuracies one standard deviation over "
    "networks, of shares the 95 % interval, both within 0 and 100 %. Crosses on the lower edge: "
    "trials that were stopped or failed, which have no samples. An axis is logarithmic where the "
    "space is.",
    "Good and novel along each number": "On test images, with 95 % intervals; the other numbers "
    "are at their largest.",
}


def sweep_page(report: SweepReport, record: Record, *, figures: dict[str, Path]) -> str:
    """Return the page.

    Args:
        report: the numbers.
        record: what made it, and where the rest lies.
        figures: caption -> PNG file.
    """
    name, *said = beginning(report.name, headline(report))
    heading, hints = _heading(report)
    kinds = ["samples" if row["trial"] == report.best else "" for row in report.rows]
    body = [
        name,
        *record.top(),
        *said,
        legend(LEGEND),
        table(heading, [_cells(report, row) for row in report.rows], kinds=kinds, hints=hints),
        *(figure(caption, file, explained=EXPLAINED[caption]) for caption, file in figures.items()),
    ]
    body += ["<h2>Reports on test images</h2>"] if report.reports else []
    body += [
        f'<p><a href="reports/{escape(each)}/report.html">{_trials_in(report, each)}</a></p>'
        for each in report.reports
    ]
    reasons = {f"trial {row['trial']}": row["reason"] for row in report.rows if "reason" in row}
    if reasons:
        body += [*paragraphs(["Why trials failed:"]), details("reasons", reasons)]
    body += record.bottom("All trials: table.csv; the best one's settings: best/.", facts={})
    return whole_page(f"{report.name}: a sweep", body)


def headline(report: SweepReport) -> list[str]:
    """Return what the sweep found, in sentences."""
    states = [row["state"] for row in report.rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    best = next((row for row in report.rows if row["trial"] == report.best), None)
    if best is None:
        return [f"None of {len(report.rows)} trials was finished ({counts})."]
    point = ", ".join(
        f"{name.replace('_', ' ')} {in_short(best.get(axis))}"
        for axis, name in short_names(report.tried).items()
    )
    first = f"Best of {len(report.rows)} trials by {_plain(report.metric)}: trial {report.best}"
    first += f" ({point})" if point else ""
    tested = ""
    if best.get("test_good_and_novel") is not None:
        share = share_with_interval(best["test_good_and_novel"], best["n"])
        tested = (
            f"; on test images, which chose nothing, {share} of its samples are good and novel "
            f"(mark: {best['test_mark']})"
        )
    return [f"{first}{tested}.", f"Trials: {counts}."]


def _trials_in(report: SweepReport, name: str) -> str:
    """Return which trials a report on test images is on; its name is a digest."""
    numbers = [str(row["trial"]) for row in report.rows if row.get("report") == name]
    return f"{'trial' if len(numbers) == 1 else 'trials'} {', '.join(numbers)}"


def _heading(report: SweepReport) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the heading and the hints of its columns."""
    names = [name.replace("_", " ") for name in short_names(report.tried).values()]
    scores = ("good and novel", "accuracy (%)", "distance")
    parts = [f"{split}: {score}" for split in ("validation", "test") for score in scores]
    hints = [f"Setting {axis}." for axis in report.tried]
    chosen = "By validation networks and images the best is chosen."
    hints += [*[chosen] * len(scores), *["No test column chose anything."] * len(scores)]
    heading = ("trial", *names, *parts, "test: mark", "state", "n", "seconds")
    mark = "What the samples are, by the rules of the report on test images."
    told = ("Number of the trial.", *hints, mark, "What became of it.", "Samples of the trial.", "")
    return heading, told


def _cells(report: SweepReport, row: Row) -> tuple[str, ...]:
    point = [in_short(row.get(axis)) for axis in report.tried]
    n = "-" if row.get("n") is None else str(row["n"])
    scores = [*_scores(row, "val"), *_scores(row, "test")]
    mark = row.get("test_mark", "-")
    return (str(row["trial"]), *point, *scores, mark, _state(row), n, f"{row['seconds']:.1f}")


def _scores(row: Row, split: str) -> Sequence[str]:
    mean, std = row.get(f"{split}_accuracy"), row.get(f"{split}_accuracy_std")
    if mean is None:
        return "-", "-", "-"
    share, ratio = row[f"{split}_good_and_novel"], row[f"{split}_distance_ratio"]
    accuracy = accuracy_cell({"mean": mean, "std": std})
    return share_with_interval(share, row["n"]), accuracy, number_cell(ratio)


def _state(row: Row) -> str:
    if "stopped_at_step" in row:
        return f"{row['state']} at step {row['stopped_at_step']:,}"
    return str(row["state"])


def _plain(metric: str) -> str:
    return metric.replace("val_", "validation ").replace("_", " ")
