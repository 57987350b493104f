"""The report on a reconstruction: numbers, words, tables, figures, html.

    reports/NAME-reconstruction/report.json   all numbers, of every network and every tensor
    report.md   report.html   errors.png   accuracy.png

Shape suffixes: E tensors of a network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dwf.errors import ConfigError
from dwf.evaluation.config import ReconstructionConfig
from dwf.evaluation.report import html
from dwf.evaluation.report.columns import (
    Column,
    accuracy_cell,
    cells,
    headings,
    hints,
    how_to_read,
    number_cell,
)
from dwf.evaluation.report.drawing import STYLE, Width, legend_below, panels, save_figures
from dwf.evaluation.report.figures import HELD_OUT_COLOUR, ORIGINAL_COLOUR
from dwf.evaluation.report.reconstructed import (
    COLUMNS,
    STATISTICS_COLUMNS,
    ReconstructedSet,
    small_cell,
)
from dwf.evaluation.report.record import Record
from dwf.evaluation.report.report import markdown_table
from dwf.evaluation.report.sets import plain
from dwf.files import read_json, told_by
from dwf.metrics import cell_of, table_console
from dwf.plain import Json, for_markdown
from dwf.run_folder import write_json, write_text
from dwf.settings import to_dict

_EXPLAINED = {
    "Relative error of each tensor": "In the order of the network. At 1 (dotted) the training "
    "networks' mean would do as well.",
    "Accuracy of networks and of their reconstructions": "Each dot is a network; on the dotted "
    "line nothing is lost.",
}
_MOST_LINES = 24
_WIDTH = 130


@dataclass(frozen=True)
class Reconstruction:
    """Errors of a codec on held-out networks, if there are any, and on training networks."""

    name: str
    config: dict[str, Json]
    headline: tuple[str, ...]
    """Sentences on what the numbers say."""
    sets: tuple[ReconstructedSet, ...]
    tensors: tuple[dict[str, Json], ...]
    """name, shape, and whether the codec covers it, of each tensor."""
    facts: dict[str, Json]

    @classmethod
    def of(
        cls,
        name: str,
        config: ReconstructionConfig,
        *,
        sets: Sequence[ReconstructedSet],
        tensors: Sequence[dict[str, Json]],
        facts: dict[str, Json],
        notes: Sequence[str] = (),
    ) -> "Reconstruction":
        """Return the report on sets, the held-out networks first; notes end its headline."""
        said = (_on_accuracy(sets[0], config.split), _on_error(sets, tensors), *notes)
        return cls(
            name,
            to_dict(config),
            headline=said,
            sets=tuple(sets),
            tensors=tuple(tensors),
            facts=facts,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The main table's heading."""
        return headings(COLUMNS, self.config["split"])

    @property
    def table(self) -> list[tuple[str, ...]]:
        """The main table's cells."""
        return cells(COLUMNS, self.sets)

    @property
    def statistics_table(self) -> list[tuple[str, ...]]:
        """Accuracies with other running statistics of BatchNorm; empty where there is none."""
        compared = [one for one in self.sets if "reconstructed_own" in one.summary]
        return cells(STATISTICS_COLUMNS, compared)

    @property
    def statistics_text(self) -> str:
        """Sentence on what the table of running statistics compares."""
        return (
            "Accuracy (%) with other running statistics of BatchNorm. Own: those that the original "
            "was trained with (of reconstructions: as decoded, where the codec covers them). "
            f"Re-estimated: on {self.facts['images for BatchNorm']} training images. The tables "
            "above compare originals with their own to reconstructions with re-estimated ones."
        )

    @property
    def _of_tensors(self) -> tuple[Column[int | None], ...]:
        """Columns of the table of tensors; a row is a tensor's number, or None: all of them."""
        return (
            Column("tensor", self._name),
            Column("shape", self._shape),
            *(column for one in self.sets for column in one.error_columns),
        )

    def _name(self, number: int | None) -> str:
        if number is None:
            return "all tensors"
        tensor = self.tensors[number]
        return tensor["name"] + ("" if tensor["covered"] else " (not covered)")

    def _shape(self, number: int | None) -> str:
        return "" if number is None else " x ".join(map(str, self.tensors[number]["shape"])) or "1"

    @property
    def tensor_columns(self) -> tuple[str, ...]:
        """The heading of the table of tensors."""
        return headings(self._of_tensors)

    @property
    def tensor_table(self) -> list[tuple[str, ...]]:
        """A line for each tensor, in the order of the network, and one for all of them."""
        return cells(self._of_tensors, [*range(len(self.tensors)), None])

    @classmethod
    def load(cls, folder: Path) -> "Reconstruction":
        """Return the report that `write_reconstruction` wrote."""
        file, cure = folder / "report.json", "make it again under another --name"
        content = read_json(file, cure=cure, error=ConfigError)
        with told_by(file, cure=cure, error=ConfigError):
            content["sets"] = tuple(ReconstructedSet(**one) for one in content["sets"])
            for name in ("headline", "tensors"):
                content[name] = tuple(content[name])
            return cls(**content)

    def markdown(self) -> str:
        """Return the report as Markdown."""
        parts = [f"# Report: {self.name}", *self.headline, markdown_table(self.columns, self.table)]
        if self.statistics_table:
            parts += ["## Running statistics of BatchNorm", self.statistics_text]
            heading = headings(STATISTICS_COLUMNS)
            parts += [markdown_table(heading, self.statistics_table)]
        parts += ["## Error of each tensor", markdown_table(self.tensor_columns, self.tensor_table)]
        parts += ["## How to read this", "\n".join(f"- {line}" for line in how_to_read(COLUMNS))]
        facts = [(key, str(value)) for key, value in self.facts.items()]
        parts += ["## What was reconstructed", markdown_table(("fact", "value"), facts)]
        return "\n\n".join(parts) + "\n"


def _on_accuracy(one: ReconstructedSet, split: str) -> str:
    cells = {m: accuracy_cell(one.summary[m]) for m in ("original", "reconstructed", "drop")}
    text = (
        f"Reconstructed {one.title} have a {split} accuracy of {cells['reconstructed']} %, the "
        f"networks themselves {cells['original']} % (n = {one.n}): a drop of {cells['drop']} "
        f"points each. They answer {100 * one.summary['agreement']['mean']:.1f} % of the images "
        "as the networks themselves do."
    )
    if "reconstructed_own" in one.summary:
        text += " Running statistics of BatchNorm were re-estimated for each reconstruction."
    if "reconstructed_beside" in one.summary:
        text += (
            " The codec draws anew what its codes leave out; with the networks' own in its place "
            f"the accuracy is {accuracy_cell(one.summary['reconstructed_beside'])} %, and "
            f"{100 * one.summary['agreement_beside']['mean']:.2f} % of the answers are the same."
        )
    if split == "val":
        text += " Scored on validation networks and images: for choices, not a result."
    return text


def _on_error(sets: Sequence[ReconstructedSet], tensors: Sequence[dict[str, Json]]) -> str:
    first = sets[0]
    each = " and ".join(f"{number_cell(one.summary['relative'])} on {one.title}" for one in sets)
    known = [
        (error, tensor["name"])
        for error, tensor in zip(first.tensors["relative"], tensors, strict=True)
        if error is not None and tensor["covered"]
    ]
    text = f"The relative error is {each} (1: no better than the training networks' mean)"
    if first.summary["relative"] is None and first.summary["rmse"] is not None:
        rmse = f"{small_cell(first.summary['rmse'])} on {first.title}"
        text = f"The error is {rmse}; no distance to a training mean is there to hold it against"
    if known:
        error, name = max(known)
        text += f"; it is largest for {name}: {number_cell(error)}"
    absent = [tensor["name"] for tensor in tensors if not tensor["covered"]]
    if absent:
        text += (
            f". {len(absent)} tensors are not covered and come back as the training networks' "
            f"mean (first: {absent[0]})"
        )
    return text + "."


def write_reconstruction(report: Reconstruction, folder: Path, *, record: Record) -> None:
    """Write `report.json`, `report.md`, the figures and `report.html` to a run folder.

    Args:
        report: the numbers.
        folder: where to write.
        record: what made it, and where the rest lies.
    """
    content = vars(report) | {"sets": [vars(one) for one in report.sets]}
    write_json(folder / "report.json", plain(content))
    write_text(folder / "report.md", for_markdown(report.markdown()))
    with matplotlib.rc_context(STYLE):
        errors, accuracy = _EXPLAINED
        drawn = {
            "accuracy.png": (accuracy, partial(_accuracy_figure, report)),
            "errors.png": (errors, partial(_error_figure, report)),
        }
        figures = save_figures(drawn, folder)
    write_text(folder / "report.html", _page(report, record, figures))


def _page(report: Reconstruction, record: Record, figures: dict[str, Path]) -> str:
    name, *headline = html.beginning(report.name, report.headline)
    body = [
        name,
        *record.top(),
        *headline,
        html.table(report.columns, report.table, hints=hints(COLUMNS)),
        *(
            html.figure(caption, file, explained=_EXPLAINED[caption])
            for caption, file in figures.items()
        ),
    ]
    if report.statistics_table:
        body += ["<h2>Running statistics of BatchNorm</h2>"]
        body += html.paragraphs([report.statistics_text])
        body += [html.table(headings(STATISTICS_COLUMNS), report.statistics_table)]
    body += [
        "<h2>Error of each tensor</h2>",
        html.table(report.tensor_columns, report.tensor_table),
        "<h2>How to read this</h2>",
        html.bullets(how_to_read(COLUMNS)),
        *record.bottom(
            facts={
                "what was reconstructed": report.facts,
                "settings of this report": report.config,
            }
        ),
    ]
    return html.whole_page(f"{report.name}: what the codec loses", body)


def _error_figure(report: Reconstruction, width: Width) -> Figure:
    names = [tensor["name"] for tensor in report.tensors]
    figure, (axes,) = panels(width, height=0.2 * len(names) + 0.8)
    for one, colour in _coloured(report):
        relative_E = np.array([math.nan if e is None else e for e in one.tensors["relative"]])
        axes.scatter(relative_E, range(len(names)), s=12, color=colour, label=one.title)
    axes.axvline(1, color="#999999", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("relative error")
    legend_below(figure, axes, width=width)
    return figure


def _accuracy_figure(report: Reconstruction, width: Width) -> Figure:
    figure, (axes,) = panels(width, height=3.2 if width.is_narrow else 4.2)
    for one, colour in _coloured(report):
        pair = (np.array(one.networks[name]) * 100 for name in ("original", "reconstructed"))
        axes.scatter(*pair, s=9, color=colour, alpha=0.7, linewidths=0, label=one.title)
    ends = axes.get_xlim()
    axes.plot(ends, ends, color="#999999", linestyle=":", linewidth=1)
    axes.set_xlabel(f"{report.config['split']} accuracy of the original (%)")
    axes.set_ylabel("of its reconstruction (%)")
    legend_below(figure, axes, width=width)
    return figure


def _coloured(report: Reconstruction) -> list[tuple[ReconstructedSet, str]]:
    """Return the sets and their colours, held-out networks last: so they are seen."""
    look = {"training networks": ORIGINAL_COLOUR}
    return [(one, look.get(one.title, HELD_OUT_COLOUR)) for one in reversed(report.sets)]


def print_reconstruction(report: Reconstruction, folder: Path) -> None:
    """Print the tables and where the page lies; of many tensors those with the largest error."""
    from rich.box import SIMPLE
    from rich.table import Table

    console = table_console(_WIDTH)

    def show(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        table = Table(title=cell_of(title), box=SIMPLE, padding=(0, 1))
        for number, column in enumerate(columns):
            justify = "right" if number else "left"
            table.add_column(cell_of(column), justify=justify, no_wrap=not number)
        for row in rows:
            table.add_row(*map(cell_of, row))
        console.print(table)

    show(f"report {report.name}", report.columns, report.table)
    if report.statistics_table:
        heading = headings(STATISTICS_COLUMNS)
        show("running statistics of BatchNorm", heading, report.statistics_table)
    *lines, whole = report.tensor_table
    title = "error of each tensor"
    if len(lines) > _MOST_LINES:
        relative = report.sets[0].tensors["relative"]
        worst = sorted(range(len(lines)), key=lambda i: -(relative[i] or 0))[:_MOST_LINES]
        title = f"the {_MOST_LINES} of {len(lines)} tensors with the largest error"
        lines = [lines[i] for i in sorted(worst)]
    show(title, report.tensor_columns, [*lines, whole])
    for paragraph in report.headline:
        console.print(cell_of(paragraph))
    print(f"report: {folder / 'report.html'}")
