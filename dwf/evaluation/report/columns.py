"""Columns of a report's tables: what stands above them, what their cells say, how to read it.

A column is added by one entry here; of a number that nobody measured yet, `sets.MEASURES` takes it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from dwf.evaluation.measure import DEVIATIONS, RATIOS
from dwf.evaluation.report.intervals import share_with_interval
from dwf.evaluation.report.sets import NetworkSet

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column of a table."""

    heading: str
    """Words above it; `{split}` stands for the images that are scored."""
    cell: Callable[[Row], str]
    """Returns what it says of a row."""
    words: str = ""
    """How to read it; empty where the words of another column are of this one, too."""
    follows: int = 0
    """Place of these words: those on what follows from other columns come after theirs."""
    is_optional: bool = False
    """Whether it is left out of a table in which all its cells are empty."""
    hint: str = ""
    """Words on its heading on a page; empty: `words`."""


def shown(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> tuple[Column[Row], ...]:
    """Return the columns that a table of these rows has."""
    return tuple(
        column for column in columns if not column.is_optional or any(map(column.cell, rows))
    )


def headings(columns: Sequence[Column[Row]], split: str = "") -> tuple[str, ...]:
    """Return what stands above the columns of a report on the images of a split."""
    return tuple(column.heading.format(split=split) for column in columns)


def hints(columns: Sequence[Column[Row]]) -> tuple[str, ...]:
    """Return what a page says where a mouse rests on a heading."""
    return tuple(column.hint or column.words for column in columns)


def cells(columns: Sequence[Column[Row]], rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """Return what the columns say of each row."""
    return [tuple(column.cell(row) for column in columns) for row in rows]


def how_to_read(columns: Sequence[Column[Row]]) -> tuple[str, ...]:
    """Return the words that explain the columns, those on what follows from others last."""
    ordered = sorted(columns, key=lambda column: column.follows)
    return tuple(column.words for column in ordered if column.words)


# --- cells ---------------------------------------------------------------------------------------


def accuracy_cell(found: dict[str, float] | None) -> str:
    """Return mean +- standard deviation in percent."""
    if found is None:
        return "-"
    spread = "" if found["std"] is None else f" +- {100 * found['std']:.2f}"
    return f"{100 * found['mean']:.2f}{spread}"


def number_cell(value: float | None) -> str:
    """Return a number with three places."""
    return "-" if value is None else f"{value:.3f}"


def share_cell(share: float | None) -> str:
    """Return a share in percent."""
    return "-" if share is None else f"{100 * share:.1f} %"


def _accuracy(statistic: str) -> Callable[[NetworkSet], str]:
    return lambda one: f"{100 * one.accuracy[statistic]:.2f}"


def _figure(measure: str) -> Callable[[NetworkSet], str]:
    return lambda one: number_cell(one.figure(measure))


def _left(one: NetworkSet) -> str:
    found = one.summary.get("exchanged")
    return f"{share_cell(found['left'])} of {found['n']}" if found else ""


def _passed(test: str) -> Callable[[NetworkSet], str]:
    return lambda one: share_with_interval(one.summary.get(test), one.n)


def _with_statistics(source: str) -> Callable[[NetworkSet], str]:
    return lambda one: accuracy_cell(one.summary["batchnorm"].get(source))


def _far(ratio: float) -> Callable[[NetworkSet], str]:
    return lambda one: share_with_interval(one.summary["profile"]["far"][f"{ratio:g}"], one.n)


def _above(bar: str) -> Callable[[NetworkSet], str]:
    return lambda one: share_with_interval(one.summary["profile"]["bars"][bar]["share"], one.n)


def _beside_zoo(measure: str) -> Callable[[NetworkSet], str]:
    def cell(one: NetworkSet) -> str:
        found = one.summary["profile"][measure]
        return f"{number_cell(found['set'])} ({number_cell(found['zoo'])})"

    return cell


# --- tables --------------------------------------------------------------------------------------

_NETWORKS: Column[NetworkSet] = Column(
    "networks",
    lambda one: one.label,
    hint="A row is a set of networks. Highlighted: generated. Below the thick line: baselines.",
)
_N: Column[NetworkSet] = Column(
    "n", lambda one: str(one.n), hint="How many networks the set has; all of them count."
)
_LEARNT_FROM: Column[NetworkSet] = Column(
    "learnt from",
    lambda one: str(one.summary.get("learnt_from", "")),
    words=(
        "Learnt from: how many training networks the generator learnt from, or the baseline is "
        "made of. Distance, overlap, dispersion, tests and mark of a set are held against these "
        "alone; originals and held-out networks are held against all."
    ),
    is_optional=True,
)
COLUMNS: tuple[Column[NetworkSet], ...] = (
    _NETWORKS,
    Column(
        "mark",
        lambda one: one.mark,
        words='The mark says what a set is, by the rules under "What the sets are".',
        follows=2,
    ),
    Column(
        "good and novel",
        lambda one: share_with_interval(one.share, one.n),
        words=(
            "Good and novel networks pass all tests, set by the training networks alone. "
            "Held-out networks, trained like the originals and seen by no generator, are the "
            "ceiling. In brackets the 95 % interval of a share of n (Wilson), which tells of the "
            "draw of networks alone, not of another seed of the training."
        ),
        follows=1,
    ),
    Column(
        "{split} accuracy (%)",
        lambda one: accuracy_cell(one.accuracy),
        words=(
            "Accuracy is mean +- standard deviation over all n networks; none is left out, none is"
            " chosen."
        ),
    ),
    Column(
        "distance",
        _figure("distance_ratio"),
        words=(
            "Distance is of weights, scales balanced and units matched: to the training network "
            "nearest by weights or to the one most alike in behaviour, whichever is nearer; as a "
            "ratio to the median of the training networks' own, each against the others: 0 is a "
            "copy, 1 is as far as two independent networks; the median over the set."
        ),
    ),
    Column(
        "behaviour",
        _figure("behaviour_ratio"),
        words=(
            "Behaviour is the distance to the training network most alike by logits on validation "
            "images, up to shift and scale, as a ratio likewise: 0 is a copy in any disguise."
        ),
    ),
    Column(
        "units",
        _figure("units_ratio"),
        words=(
            "Units is the distance of hidden units, as what they compute on training images, to "
            "the nearest units of training networks: the median over a layer's units as a ratio "
            "likewise, of the layer where that is least; 0 is a layer of units that are taken over."
        ),
    ),
    _N,
    _LEARNT_FROM,
    Column("median", _accuracy("median"), hint="Median accuracy of the set (%)."),
    Column("best", _accuracy("max"), hint="Accuracy of the set's best network (%)."),
    Column("worst", _accuracy("min"), hint="Accuracy of the set's worst network (%)."),
    Column(
        "overlap",
        _figure("overlap"),
        words=(
            "Overlap is of wrong answers with the training network at that distance, "
            "|both| / |either|; the mean over the set. It decides nothing. The originals' "
            "distance, behaviour, units and overlap are against the other ones."
        ),
    ),
    Column(
        "dispersion",
        _figure("dispersion"),
        words="Dispersion is the set's root mean square distance to its own mean over that of the "
        "training networks: below 0.7 a generator has lost much of the variety that it learnt "
        "from.",
    ),
    Column(
        "exchanged",
        _left,
        words="Exchanged: what is left of the accuracy above chance when each layer of a network "
        "comes from another network of the set, drawn for each layer by itself, and of how many "
        "networks: where it is far above the originals', layers were drawn without regard for "
        "each other; a dash where the networks themselves are not clearly better than chance.",
        is_optional=True,
    ),
)
"""The main table: a row for each set."""
TEST_COLUMNS: tuple[Column[NetworkSet], ...] = (
    _NETWORKS,
    Column("all", _passed("good_and_novel"), hint="Share that passes all four tests."),
    Column("accurate", _passed("accurate"), hint="Share that is accurate enough."),
    Column("distant", _passed("distant"), hint="Share that is far enough by weights."),
    Column("behaviour of its own", _passed("unlike"), hint="Share that answers otherwise enough."),
    Column("units of its own", _passed("new_units"), hint="Share whose hidden units are new."),
    Column("copies", _passed("copy"), hint="Share that is copies of training networks."),
    Column("averages", _passed("average"), hint="Share that is averages of training networks."),
    _N,
    _LEARNT_FROM,
)
"""Which share of a set passes each test, and is of each kind."""
PROFILE_COLUMNS: tuple[Column[NetworkSet], ...] = (
    _NETWORKS,
    _N,
    *(Column(f"good at {ratio:g}", _far(ratio)) for ratio in RATIOS),
    *(Column(f"above mean - {k} std", _above(f"mean - {k} std")) for k in DEVIATIONS),
    Column("above the bar", _above("fixed")),
    Column("disagreement (zoo)", _beside_zoo("disagreement")),
    Column("effective rank (zoo)", _beside_zoo("effective_rank")),
)
"""How a set fares under other limits than those of good and novel; of sets that have a profile."""
STATISTICS_COLUMNS: tuple[Column[NetworkSet], ...] = (
    Column("networks", lambda one: one.title),
    _N,
    *(Column(s, _with_statistics(s)) for s in ("own", "none", "reference", "recalibrated")),
)
"""Accuracy with other running statistics of BatchNorm."""
