"""Tables of a report, and what its figures say in sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from dwf.evaluation.report import Column, cells, headings, hints, number_cell, shown
from dwf.predictors.compare import ALL, LAST, Entry, Target
from dwf.predictors.config import Symmetry
from dwf.predictors.report.report import Report, Row
from dwf.predictors.scores import Score

SYMMETRIES = get_args(Symmetry)
_SHORT = ("row", "is shown", "tau", "tau over ceiling", "over best baseline", "R2")


@dataclass(frozen=True)
class Table:
    """One table with what it is about."""

    title: str
    words: str
    heading: tuple[str, ...]
    rows: list[tuple[str, ...]]
    baselines: tuple[bool, ...] = ()
    """Whether each row is a baseline; empty where rows are no rows of the experiment."""
    hints: tuple[str, ...] = ()
    """How to read each column; empty: no table of columns that are explained."""


@dataclass(frozen=True)
class Line:
    """One row and its figures on one property of all test networks."""

    row: Row
    entry: Entry
    last: Entry | None
    target: Target
    over: float | None


def lines_of(report: Report, name: str) -> list[Line]:
    """Return the lines of the main table of a property."""
    found = []
    for row in report.rows:
        if entry := report.entry(row.name, name):
            last = report.entry(row.name, name, step=LAST)
            target, over = report.target(name), report.over_ceiling(entry)
            found.append(Line(row, entry, last=last, target=target, over=over))
    return found


def score_cell(score: Score | None, *, sign: str = "") -> str:
    """Return mean, spread over seeds and interval: `0.912 +- 0.004 [0.901, 0.921]`."""
    if score is None or score.mean is None:
        return "-"
    spread = "" if score.std is None else f" +- {score.std:.3f}"
    ends = "" if score.low is None else f" [{score.low:{sign}.3f}, {score.high:{sign}.3f}]"
    return f"{score.mean:{sign}.3f}{spread}{ends}"


def _count(target: Target) -> str:
    """Return how many networks figures are of, and of how many epochs of them."""
    if target.n == target.networks:
        return f"{target.n} test networks"
    return f"{target.n} epochs of {target.networks} test networks"


def tables(report: Report) -> Iterator[Table]:
    """Yield all tables, in reading order."""
    for name in report.properties:
        lines = lines_of(report, name)
        columns = shown(MAIN, lines)
        marks = tuple(line.row.is_baseline for line in lines)
        title = f"{name}: {_count(report.target(name))}"
        told = cells(columns, lines)
        yield Table(title, "", headings(columns), told, baselines=marks, hints=hints(columns))
    yield _ceilings(report)
    if len(report.subsets) > 1:
        yield from (_by_subset(report, name) for name in report.properties)
    yield _symmetries(report)


def _ceilings(report: Report) -> Table:
    rows = cells(CEILINGS, report.targets)
    return Table("Ceilings", CEILING_WORDS, headings(CEILINGS), rows)


def _by_subset(report: Report, name: str) -> Table:
    some = [subset for subset in report.subsets if subset != ALL]
    heading = ("row", *(f"{s} (n = {report.target(name, subset=s).n})" for s in some))
    rows = [
        (row.label, *(_tau_over(report, report.entry(row.name, name, subset=s)) for s in some))
        for row in report.rows
    ]
    marks = tuple(row.is_baseline for row in report.rows)
    return Table(f"{name} of some of the networks", SUBSET_WORDS, heading, rows, baselines=marks)


def _symmetries(report: Report) -> Table:
    heading = ("row", "is shown", *SYMMETRIES)
    rows = [
        (row.label, row.access_words, *(row.verdict(symmetry) for symmetry in SYMMETRIES))
        for row in report.rows
    ]
    marks = tuple(row.is_baseline for row in report.rows)
    title = "Symmetries claimed and found"
    return Table(title, SYMMETRY_WORDS, heading, rows, baselines=marks)


def _tau_over(report: Report, entry: Entry | None) -> str:
    if entry is None:
        return "-"
    return f"{score_cell(entry.scores['tau'])}, {number_cell(report.over_ceiling(entry))}"


def headline(report: Report) -> Iterator[str]:
    """Yield what the figures say, in sentences."""
    for name in report.properties:
        lines = [line for line in lines_of(report, name) if line.entry.tau is not None]
        own = [line for line in lines if not line.row.is_baseline]
        if not lines:
            yield f"{name}: all test networks have one value, so none is ranked above another."
            continue
        best = max(own or lines, key=lambda line: line.entry.val_tau)
        yield f"{name}: {_sentence(best)}"
    for row in report.rows:
        for symmetry in row.breaks:
            yield (
                f"{row.name} claims that {symmetry} change no prediction, but they change one by "
                f"{row.changes[symmetry]:.2g} of the property's unit."
            )


def terminal(report: Report) -> Iterator[str]:
    """Yield a short table of each property, then the sentences."""
    for name in report.properties:
        lines = lines_of(report, name)
        columns = [column for column in MAIN if column.heading in _SHORT]
        table = [headings(columns), *cells(columns, lines)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        yield f"{name}: {_count(report.target(name))}"
        for one in table:
            padded = [
                cell.ljust(width) if place < 2 else cell.rjust(width)  # words left, numbers right
                for place, (cell, width) in enumerate(zip(one, widths, strict=True))
            ]
            yield "  ".join(["", *padded])
    yield from headline(report)


def _sentence(line: Line) -> str:
    over = "" if line.over is None else f", {line.over:.3f} of what can be reached"
    tau = score_cell(line.entry.scores["tau"])
    said = f"{line.row.label}, the best row on validation networks, has tau {tau}{over}"
    gain = line.entry.scores.get("gain")
    if gain is None or gain.low is None:
        return f"{said}; there is no other baseline to hold it against."
    clear = "clearly above" if gain.low > 0 else "below" if gain.high < 0 else "not clearly above"
    return (
        f"{said}; {clear} the best baseline, {line.target.best_baseline} "
        f"({score_cell(gain, sign='+')})."
    )


# --- columns -------------------------------------------------------------------------------------


def _score(metric: str, line: Line) -> str:
    return score_cell(line.entry.scores[metric])


def _claims(line: Line) -> str:
    return ", ".join(line.row.invariances) or "-"


def _holds(line: Line) -> str:
    return ", ".join(line.row.holds) or "-"


def _gain(line: Line) -> str:
    return score_cell(line.entry.scores.get("gain"), sign="+")


def _last(line: Line) -> str:
    return score_cell(line.last.scores["tau"]) if line.last else ""


def _seconds(line: Line) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in line.row.seconds.items()) or "-"


MAIN: tuple[Column[Line], ...] = (
    Column("row", lambda line: line.row.label, words="Baselines are marked, and stand last."),
    Column(
        "is shown",
        lambda line: line.row.access_words,
        words="Is shown: columns of the zoo's table alone, the weights, or the network itself, "
        "which it may run on inputs of its own (function access).",
    ),
    Column(
        "tau",
        partial(_score, "tau"),
        words="Tau is Kendall's tau-b of predicted and true values: the mean over seeds +- their "
        "standard deviation, and in brackets the 95 % interval over draws of test networks with "
        "replacement (percentiles; 1,000 draws, fewer of more than 1,000 networks, 200 at least). "
        "A row that says the same of all networks has 0.",
    ),
    Column(
        "tau over ceiling",
        lambda line: number_cell(line.over),
        words="Tau over ceiling: tau as a share of what can be reached; see the ceilings.",
    ),
    Column(
        "over best baseline",
        _gain,
        words="Over best baseline: tau less that of the baseline with the highest tau on these "
        "test networks, on the same draws of networks; the difference is clear where its interval "
        "does not hold 0.",
    ),
    Column("Spearman", partial(_score, "spearman"), words="Spearman is the correlation of ranks."),
    Column(
        "R2",
        partial(_score, "r2"),
        words="R2 is 1 less the squared error over that of the test networks' own mean.",
    ),
    Column("MAE", partial(_score, "mae"), words="MAE and RMSE are in units of the property."),
    Column("RMSE", partial(_score, "rmse")),
    Column(
        "validation tau",
        lambda line: number_cell(line.entry.scores["val_tau"].mean),
        words="Validation tau: that of the validation networks, by which the row is chosen that "
        "the first sentences name. Rows chose steps, penalties and trees by them, too.",
    ),
    Column(
        "tau at last step",
        _last,
        words="Tau at last step: of the last step of training, where the step was chosen on "
        "validation networks.",
        is_optional=True,
    ),
    Column("claims", _claims, words="Claims: symmetries that change no prediction, as it says."),
    Column("holds", _holds, words="Holds: symmetries tried that change none by more than 1e-5."),
    Column("seeds", lambda line: str(len(line.row.seeds))),
    Column("seconds", _seconds, words="Seconds are means over seeds, of all networks together."),
)
"""The main table: a row for each row, of one property."""
CEILINGS: tuple[Column[Target], ...] = (
    Column("property", lambda t: t.property),
    Column("networks", lambda t: t.subset),
    Column("n", lambda t: str(t.n)),
    Column("mean +- std", lambda t: f"{t.mean:.4g} +- {t.std:.3g}"),
    Column("images", lambda t: "-" if t.images is None else str(t.images)),
    Column("ties", lambda t: number_cell(t.ceiling.ties)),
    Column("noise", lambda t: number_cell(t.ceiling.noise)),
    Column("luck", lambda t: t.ceiling.luck or "-"),
    Column("tau", lambda t: number_cell(t.ceiling.tau)),
    Column("R2", lambda t: number_cell(t.ceiling.r2)),
    Column("best baseline", lambda t: t.best_baseline or "-"),
)
"""How well each property can be told."""
CEILING_WORDS = (
    "Ties: the largest tau-b of a row that tells no two networks the same, since networks with "
    "equal true values have no order; computed. Noise: what an oracle reaches that knows each "
    "network's expected share of right images, but not the luck of the images that were drawn: "
    "pairs that it orders rightly less those wrongly, of the pairs that are not tied. Luck: "
    "`shared`, images were drawn anew, the same for all networks; `own`, where their answers to "
    "each image are not known it is binomial, of each network by itself, and the ceiling too low. "
    "Tau: both together, their product. R2 of the oracle: in closed form, but for a half that is "
    "chosen by the property itself. A row learns from labels with the same luck, so it may pass "
    "the ceiling a little."
)
SUBSET_WORDS = (
    "Tau with its interval, and over the ceiling of these networks. The better half has at least "
    "the median test accuracy, measured."
)
SYMMETRY_WORDS = (
    "Largest change of a prediction, in units of the property's standard deviation over training "
    "networks, where units of every traced group are permuted at random, scaled by powers of two "
    "or changed in sign, none of which changes what a network computes. A claim holds up to 1e-5. "
    "A symmetry that these networks do not have is not tried."
)


LEGEND = (
    (
        "tau",
        "how well a row ranks the networks: 1 is the true order, 0 none; in brackets its 95 % "
        "interval over draws of test networks",
    ),
    ("tau over ceiling", "the share of what can be reached: ties and few images set a limit"),
    ("over best baseline", "what a row gains; clear where its interval does not hold 0"),
    ("rows", "those below the line are baselines; function access: shown the network itself"),
)
"""Legend above the tables: a word, and what it means."""


def how_to_read(report: Report) -> tuple[str, ...]:
    """Return the words that explain the main table."""
    lines: Sequence[Line] = lines_of(report, report.properties[0])
    return tuple(column.words for column in shown(MAIN, lines) if column.words)
