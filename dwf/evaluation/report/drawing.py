"""Figures as files, at the widths of a paper's columns, and as the page has them.

    NAME.png                                 both columns' width, 300 dpi
    figures/NAME-one-column.pdf, .svg        its panels one below the other
    figures/NAME-two-columns.pdf, .svg       its panels side by side

A page holds both SVGs and shows the one that suits the screen.
"""

import gc
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

from dwf.run_folder import replacing

INK = "#1d2430"
"""Colour of text, axes and lines; on the page that of its text, so that it follows dark mode."""
# Colours that are lighter on a dark page -> what the style sheet calls them.
_ON_PAGE = {
    INK: "currentColor",
    "#0072b2": "var(--blue)",
    "#555555": "var(--soft)",
    "#808080": "var(--grey)",
    "#a0652d": "var(--brown)",
    "#c23b3b": "var(--red)",
    "#882255": "var(--purple)",
    "#7a5fc0": "var(--violet)",
}
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.handletextpad": 0.4,
    "figure.facecolor": "none",
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "dwf",
    "savefig.dpi": 300,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "axes.titlecolor"), INK),
    **{f"boxplot.{part}.color": INK for part in ("boxprops", "whiskerprops", "capprops")},
    "boxplot.flierprops.markeredgecolor": INK,
}
"""Settings of matplotlib under which figures are drawn and saved."""
_PAD = 0.06  # inches: letters of the page may be a little wider than those measured here
_LINE = 0.17  # inches of a line of a legend
_LOAD_FONT = subset.load_font
_OF_JOINED_LETTERS = ("GDEF", "GPOS", "GSUB")
# A file says nothing of the moment or the software: equal reports are equal files.
_METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclass(frozen=True)
class Width:
    """Width that a figure is drawn at."""

    name: str
    """Its name in those of files."""
    inches: float
    across: int
    """How many panels stand side by side, where a figure does not say otherwise."""

    @property
    def is_narrow(self) -> bool:
        """Whether panels stand one below the other."""
        return self.across == 1


ONE_COLUMN = Width("one-column", 3.5, across=1)
TWO_COLUMNS = Width("two-columns", 7.2, across=2)
WIDTHS = (ONE_COLUMN, TWO_COLUMNS)
Draw = Callable[[Width], Figure]
"""Returns a figure of a width."""


def panels(
    width: Width, count: int = 1, *, height: float, across: int = 2, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, side by side or one below the other.

    The lines of panels are as even as they can be: four of at most three side by side are two lines
    of two.

    Args:
        width: of the figure.
        count: panels.
        height: of a panel, inches.
        across: panels side by side at most, where the figure is wide.
        share_y: whether panels side by side have one vertical axis.
    """
    beside = 1 if width.is_narrow else min(count, across)
    down = math.ceil(count / beside)
    beside = math.ceil(count / down)
    figure = Figure(figsize=(width.inches, height * down), layout="constrained")
    figure.get_layout_engine().set(w_pad=_PAD)
    grid = figure.subplots(down, beside, squeeze=False, sharey="row" if share_y else False)
    every = grid.ravel().tolist()
    for spare in every[count:]:
        spare.set_axis_off()
    return figure, every[:count]


def legend_below(figure: Figure, axes: Axes, *, width: Width, columns: int = 3) -> None:
    """Put the legend of a panel below the figure, which becomes higher by it."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    fits = max(1, int(width.inches * 14 / (max(map(len, labels)) + 6)))  # letters of a column
    beside = min(columns, fits, len(labels))
    lines = math.ceil(len(labels) / beside)
    high, wide = figure.get_figheight(), figure.get_figwidth()
    figure.set_size_inches(wide, high + _LINE * lines + 0.1)
    where = "outside lower left"
    figure.legend(handles, labels, loc=where, ncols=beside, markerscale=1.4)


def legend_beside(axes: Axes, width: Width) -> None:
    """Put the legend of a panel at its right; where the figure is narrow below it."""
    if width.is_narrow:
        axes.legend(loc="upper left", bbox_to_anchor=(-0.1, -0.45), fontsize=7)
    else:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def save_figures(figures: Mapping[str, tuple[str, Draw]], folder: Path) -> dict[str, Path]:
    """Write figures in all widths and formats; call it under `STYLE`.

    Args:
        figures: name of the PNG file -> caption, and what draws it.
        folder: where the PNG files go, the others into `figures` in it.

    Returns:
        Caption -> PNG file.
    """
    drawn: dict[str, Path] = {}
    for file, (caption, draw) in figures.items():
        for width in WIDTHS:
            with _without_collections():
                figure = draw(width)
                _take_literally(figure)
                _place(figure)
                for path in sized(folder / file, width):
                    _save(figure, path)
                if not width.is_narrow:
                    _save(figure, folder / file)
        drawn[caption] = folder / file
    return drawn


def _take_literally(figure: Figure) -> None:
    """Let names in a figure be text, whatever `$` is in them; numbers at ticks stay formulas."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if not isinstance(axis.get_major_formatter(), (FixedFormatter, FuncFormatter)):
            for label in axis.get_ticklabels(which="both"):
                label.set_parse_math(True)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Collect no garbage meanwhile: a figure makes so many objects that all are walked often."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _place(figure: Figure) -> None:
    """Find the places of all parts, and keep them: no format needs to find them again.

    A title stands at the upper edge, unless ticks or a factor of the axis are there.
    """
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine(None)
    for axes in figure.axes:
        is_clear = axes.xaxis.get_ticks_position() == "bottom"
        if is_clear and not axes.yaxis.get_offset_text().get_text():
            for where in ("left", "center", "right"):
                axes.set_title(axes.get_title(where), loc=where, y=1)


def sized(png: Path, width: Width) -> tuple[Path, Path]:
    """Return the PDF and the SVG file of a figure in a width, by its PNG file."""
    stem = png.parent / "figures" / f"{png.stem}-{width.name}"
    return stem.with_name(f"{stem.name}.pdf"), stem.with_name(f"{stem.name}.svg")


def files_of(png: Path) -> list[Path]:
    """Return all files that a figure is saved as, by its PNG file."""
    return [png, *(file for width in WIDTHS for file in sized(png, width))]


def _save(figure: Figure, path: Path) -> None:
    kind = path.suffix[1:]
    back = "white" if kind == "png" else "none"
    with replacing(path) as partial, mock.patch.object(subset, "load_font", _load_font):
        figure.savefig(partial, format=kind, facecolor=back, metadata=_METADATA[kind])


def _load_font(file: str, options: subset.Options) -> TTFont:
    """Return a font to be cut to the letters of a PDF: without the tables of how letters join.

    A PDF places each letter, so nothing reads them there; to cut them took a quarter of the time
    of a report's figures.
    """
    font = _LOAD_FONT(file, options)
    for table in _OF_JOINED_LETTERS:
        if table in font:
            del font[table]
    return font


def inline_svg(svg: Path, *, label: str, shown: str) -> str:
    """Return an SVG file as a part of a page, in the page's own colour of text.

    Args:
        svg: the file.
        label: words for those who do not see it.
        shown: class of the style sheet.
    """
    text = svg.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Names of parts are those of the whole page, which has several figures.
    mine = re.sub("[^a-zA-Z0-9]+", "-", svg.stem)
    text = re.sub(r'\bid="', f'id="{mine}-', text)
    text = re.sub(r'href="#', f'href="#{mine}-', text).replace("url(#", f"url(#{mine}-")
    for colour, of_page in _ON_PAGE.items():
        text = text.replace(colour, of_page)
    head = f'<svg class="{shown}" role="img" aria-label="{label}"'
    return re.sub(r'<svg((?: (?!width|height)[\w:]+="[^"]*")*)', lambda _: head, text, count=1)


def name_rows(each_axes: Sequence[Axes], names: Sequence[str], *, width: Width) -> None:
    """Name the rows of panels, the first on top: at each of them, or where they share an axis once.

    Args:
        each_axes: panels of `panels` with `share_y`.
        names: of the rows at 0, 1, 2, ...
        width: of the figure.
    """
    longest = 26 if width.is_narrow else 46
    for axes in each_axes if width.is_narrow else each_axes[:1]:
        axes.set_yticks(range(len(names)), per_line(names, longest=longest), linespacing=0.95)
        axes.set_ylim(len(names) - 0.4, -0.6)


def per_line(names: Sequence[str], longest: int = 28) -> list[str]:
    """Return names as labels of an axis: long ones on two lines, cut between words."""
    return [_broken(name, longest) for name in names]


def _broken(name: str, longest: int) -> str:
    if len(name) <= longest or " " not in name:
        return name
    cuts = [at for at, letter in enumerate(name) if letter == " "]
    at = min(cuts, key=lambda cut: abs(cut - len(name) / 2))
    return f"{name[:at]}\n{name[at + 1 :]}"
