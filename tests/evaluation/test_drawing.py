"""Files of figures: places are those that matplotlib finds by drawing; PDFs hold what they show."""

import io
import re
import zlib

import matplotlib
import pytest
from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image

from dwf.evaluation.report.drawing import STYLE, TWO_COLUMNS, panels, save_figures, sized

LOAD = subset.load_font


@pytest.fixture(autouse=True)
def coarse_figures():
    """Figures as a user has them."""


def drawn(width=TWO_COLUMNS):
    """Panels with a title alone, beside a factor of the axis, and above ticks at the top."""
    figure, (plain, offset, above) = panels(width, 3, height=2, across=3)
    for axes, values in ((plain, [1, 2, 3]), (offset, [1e-9, 2e-9, 3e-9]), (above, [3, 1, 2])):
        axes.plot(values)
        axes.set_title("fifty flats")
        axes.set_xlabel("step")
    above.xaxis.tick_top()
    return figure


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The figure as files, by its PNG file."""
    folder = tmp_path_factory.mktemp("figures")
    with matplotlib.rc_context(STYLE):
        save_figures({"a.png": ("A", drawn)}, folder)
    return folder / "a.png"


def test_places_that_are_found_once_are_matplotlibs(saved, tmp_path):
    with matplotlib.rc_context(STYLE):
        figure = drawn()
        figure.draw_without_rendering()  # places of all, as matplotlib finds them when it draws
        figure.set_layout_engine(None)
        figure.savefig(tmp_path / "anew.svg", facecolor="none")
    places = r'<text style="[^"]*" [^>]*>[^<]*</text>'
    ours = re.findall(places, sized(saved, TWO_COLUMNS)[1].read_text())
    assert len(ours) > 20
    assert ours == re.findall(places, (tmp_path / "anew.svg").read_text())


def test_a_pdf_holds_its_letters_and_no_table_of_how_they_join(saved):
    pdf = sized(saved, TWO_COLUMNS)[0].read_bytes()
    streams = re.findall(rb"/Length1 \d+.*?stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    fonts = [TTFont(io.BytesIO(zlib.decompress(each))) for each in streams]
    assert not [tag for font in fonts for tag in ("GSUB", "GPOS", "GDEF") if tag in font]
    letters = {name for font in fonts for name in font.getGlyphOrder()}
    assert {"fi", "fl", *"tysaep"} <= letters and "z" not in letters
    assert subset.load_font is LOAD


def test_pictures_have_the_dots_per_inch_of_the_style(saved):
    assert Image.open(saved).size[0] == round(TWO_COLUMNS.inches * STYLE["savefig.dpi"])
