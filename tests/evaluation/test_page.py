"""Titles, intervals, commands, links and the index: against SciPy, by hand, and by running them."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

from dwf.errors import ConfigError
from dwf.evaluation.lineage import commands_of, links_of
from dwf.evaluation.measure import FAMILIES
from dwf.evaluation.report import INDEX, drawing, share_interval, write_index
from dwf.evaluation.report.drawing import inline_svg
from dwf.evaluation.report.figures import (
    HELD_OUT_COLOUR,
    ORIGINAL_COLOUR,
    SAMPLE_COLOURS,
    accuracy_step,
)
from dwf.evaluation.report.html import TOP, as_html, beginning, table, whole_page
from dwf.evaluation.report.record import Record, in_words, save_timing
from dwf.evaluation.report.style import STYLE_SHEET
from dwf.evaluation.titles import titles_of
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.zoo.layout import Layout
from dwf.zoo.manifest import write_manifest
from tests.zoos import facts_of, sampled, write_rows

FLAT_GAUSSIAN = {"zoo": "z", "codec": {"kind": "flat"}, "density": {"kind": "gaussian"}}


def drawn(name, generator=None):
    """A zoo of samples, as far as titles look at it."""
    sampled = generator and SimpleNamespace(generator=generator)
    return SimpleNamespace(name=name, facts=SimpleNamespace(sampled=sampled))


def generator(root, name, **changes):
    (root / "runs" / name).mkdir(parents=True)
    (root / "runs" / name / "config.yaml").write_text(yaml.safe_dump(FLAT_GAUSSIAN | changes))


def test_titles_are_the_generators_own_words(tmp_path):
    generator(tmp_path, "long-name-of-a-run")
    generator(tmp_path, "other", codec={"kind": "pca"})
    samples = [drawn("a-samples", "long-name-of-a-run"), drawn("b", "other"), drawn("files")]
    assert titles_of(samples, root=tmp_path) == {
        "a-samples": "Gaussian over flat weights",
        "b": "Gaussian over principal components",
        "files": "files",
    }


def test_generators_of_one_kind_are_told_apart_by_what_differs_in_their_names(tmp_path):
    names = [f"digits-flat-s{seed}-samples" for seed in (0, 1)]
    for name in names:
        generator(tmp_path, name)
    found = titles_of([drawn(name, name) for name in names], root=tmp_path)
    assert list(found.values()) == [f"Gaussian over flat weights (s{s})" for s in (0, 1)]


def test_labels_are_the_users_and_all_different(tmp_path):
    samples = [drawn("a"), drawn("b")]
    assert titles_of(samples, label=("x", "y"), root=tmp_path) == {"a": "x", "b": "y"}
    for wrong in (("x",), ("x", "x")):
        with pytest.raises(ConfigError, match=r"2 sets of samples \(a, b\) have a title each"):
            titles_of(samples, label=wrong, root=tmp_path)


def test_intervals_are_scipys():
    for count, n in ((0, 30), (3, 12), (256, 256), (55, 100), (1, 1)):
        ends = binomtest(count, n).proportion_ci(0.95, method="wilson")
        assert share_interval(count / n, n) == pytest.approx((ends.low, ends.high), abs=1e-5)


def test_accuracies_that_lie_on_lines_are_moved_by_less_than_a_line():
    def one(family, accuracies):
        return SimpleNamespace(family=family, accuracy_S=np.array(accuracies))

    discrete = one("originals", [0.9, 0.9, 0.92, 0.92, 0.92, 0.9])
    assert accuracy_step([discrete, one("samples", [0.5, 0.51])]) == pytest.approx(0.01)
    assert accuracy_step([one("originals", [0.9, 0.91, 0.93, 0.94])]) == 0


def test_back_ticks_become_code_and_hints_stand_on_headings():
    assert as_html("see `a <b>` +- 1") == "see <code>a &lt;b&gt;</code> &plusmn;&nbsp;1"
    html = table(("one", "two"), [("x", "5.0 % [1.0, 9.0]")], hints=("", "How `two` is read."))
    assert '<th>one</th><th><abbr title="How two is read.">two</abbr></th>' in html
    assert '5.0&nbsp;% <span class="soft">[1.0, 9.0]</span>' in html


def test_a_number_is_not_parted_from_its_unit_and_spread():
    assert as_html("0 % of 60: 84.07 +- 5.44 % at 1") == (
        "0&nbsp;% of 60: 84.07&nbsp;&plusmn;&nbsp;5.44&nbsp;% at 1"
    )


def test_columns_of_words_begin_at_the_left_and_names_may_break_behind_underscores():
    rows = [("a_long_name", "copying", "0.5", "-"), ("b", "-", "none", "-")]
    html = table(("networks", "mark", "n", "m"), rows)
    assert '<table style="--name: 11ch">' in html and "<td>a_<wbr>long_<wbr>name</td>" in html
    assert '<th class="left">mark</th>' in html and '<td class="left">copying</td>' in html
    assert "<th>n</th>" in html and "<td>none</td>" in html and "<th>m</th>" in html
    assert table(("one", "two"), []).count("<th>") == 2


def test_a_figure_in_a_page_has_colours_that_the_style_sheet_makes_lighter_on_a_dark_page(tmp_path):
    assert set(re.findall(r"var\((--\w+)\)", " ".join(drawing._ON_PAGE.values()))) <= set(
        re.findall(r"(--\w+): #", STYLE_SHEET.partition("prefers-color-scheme: dark")[2])
    )
    file = tmp_path / "a.svg"
    file.write_text('<svg viewBox="0 0 5 4"><g style="fill: #0072b2; stroke: #d55e00"/></svg>')
    found = inline_svg(file, label="A figure", shown="wide")
    assert "fill: var(--blue); stroke: #d55e00" in found


def test_every_colour_of_a_figure_can_be_seen_on_a_dark_page():
    """Contrast of dots and lines; WCAG asks 3 of graphics, and dots are pale."""
    named = re.findall(r"--(\w+): (#\w{6})", STYLE_SHEET)
    dark = dict(named)  # the later ones are those of the dark page
    colours = {*SAMPLE_COLOURS, HELD_OUT_COLOUR, ORIGINAL_COLOUR}
    colours |= {family.colour for family in FAMILIES.values()}
    for colour in {each.lower() for each in colours}:
        name = re.sub(r"var\(--(\w+)\)", r"\1", drawing._ON_PAGE.get(colour, ""))
        assert contrast(dark.get(name, colour), dark["page"]) >= 4, colour


def contrast(one, other):
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_page_of_several_sections_links_to_them_below_its_record():
    sections = ["<h2>First</h2>", "<p>x</p>", "<h2>A &amp; b</h2>", "<h2>First</h2>"]
    short = whole_page("r: t", ["<h1>r</h1>", f"{TOP}when</p>", *sections])
    assert "On this page" not in short and '<h2 id="section-3">First</h2>' in short
    page = whole_page("r: t", ["<h1>r</h1>", f"{TOP}when</p>", *sections, "<h2>Last</h2>"])
    assert "when</p>\n" + '<p class="soft">On this page: <a href="#section-1">First</a>' in page
    assert '<a href="#section-2">A &amp; b</a>' in page
    assert set(re.findall('href="#(.*?)"', page)) == set(re.findall('<h2 id="(.*?)"', page))


def test_an_svg_in_a_page_has_names_of_its_own_and_the_pages_ink(tmp_path):
    file = tmp_path / "a.b.svg"
    file.write_text(
        '<?xml version="1.0"?><!DOCTYPE x><svg xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://x" width="5pt" height="4pt" viewBox="0 0 5 4" version="1.1">'
        '<metadata>m</metadata><g id="p" style="fill: #1d2430; clip-path: url(#c)"/>'
        '<use xlink:href="#p"/></svg>'
    )
    found = inline_svg(file, label="A figure", shown="wide")
    assert found.startswith('<svg class="wide" role="img" aria-label="A figure"')
    assert 'id="a-b-p"' in found and "url(#a-b-c)" in found and 'href="#a-b-p"' in found
    assert "currentColor" in found and "http" not in found and "metadata" not in found


def test_durations_are_told_in_words(tmp_path):
    assert [in_words(s) for s in (3.14159, 600, 7300)] == [
        "3.14 seconds",
        "10 minutes",
        "2 h 2 min",
    ]
    (tmp_path / "environment.json").write_text('{"cores": 2, "system": "s", "python": "3"}')
    save_timing(tmp_path, 61)
    record = Record.read(
        tmp_path,
        page=tmp_path / "r",
        commands=["dwf zoo --name a"],
        links=[("all", tmp_path / "x.html")],
    )
    assert re.fullmatch(r"\d+ \w+ \d{4}, \d\d:\d\d UTC, 61 seconds", record.when)
    assert '<a href="../x.html">all</a>' in record.top()[0]
    assert "<pre>dwf zoo --name a</pre>" in record.bottom(facts={})


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if tag == "a" and name == "href"]


def test_the_index_leads_to_all_that_is_there(tmp_path):
    (tmp_path / "reports" / "r").mkdir(parents=True)
    (tmp_path / "reports" / "r" / "report.html").write_text("<title>r: how good</title>")
    (tmp_path / "reports" / "r" / "done.json").write_text('{"headline": ["`it` is good"]}')
    (tmp_path / "reports" / "begun").mkdir()
    (tmp_path / "zoos" / "broken").mkdir(parents=True)
    (tmp_path / "zoos" / "broken" / "zoo.json").write_text("{")
    generator(tmp_path, "g")
    (tmp_path / "runs" / "g" / "generator.json").write_text("{}")
    file = write_index(tmp_path)
    page, links = file.read_text(), _Links()
    links.feed(page)
    wanted = {"../reports/r/report.html", "../reports/begun/", "../zoos/broken/", "../runs/g/"}
    assert set(links.found) == wanted
    assert all((file.parent / each).exists() for each in links.found)
    assert "<code>it</code> is good" in page and "not finished" in page
    assert "Gaussian over flat weights, learnt from z" in page


def test_the_index_tells_what_each_report_says_and_counts_networks(tmp_path):
    layout = Layout.of(build_network(MLPConfig((64, 10))))
    facts = facts_of(layout, provenance=sampled())
    columns = {"network": np.repeat(np.arange(3), 2), "epoch": np.tile([1, 2], 3)}
    write_rows(tmp_path / "zoos" / "drawn", facts, np.zeros((6, 650)), columns)
    write_manifest(tmp_path / "zoos" / "both", {"x": "drawn", "y": "other"})
    for kind, file, title in (
        ("reports", "report.html", "properties told from weights"),
        ("reports", "transfer.html", "transfer"),
        ("audits", "audit.html", "an audit of generators"),
        ("sweeps", "sweep.html", "a sweep"),
    ):
        folder = tmp_path / kind / title.replace(" ", "_")
        folder.mkdir(parents=True)
        page = whole_page(f"x: {title}", beginning("x", [f"`{kind}` say 5 +- 1 % <"]))
        (folder / file).write_text(page, encoding="utf-8")
    (tmp_path / "exports" / "e").mkdir(parents=True)
    (tmp_path / "pipelines" / "p").mkdir(parents=True)
    (tmp_path / "pipelines" / "p" / "config.yaml").write_text("{zoo: a, align: null, seeds: 2}")
    (tmp_path / "pipelines" / "p" / "seconds.json").write_text("{}")
    (tmp_path / "reports" / "summary.md").write_text("")
    text = write_index(tmp_path).read_text(encoding="utf-8")
    assert "3 networks in 6 rows of 650 weights on digits" in text
    assert "a family of drawn, other" in text
    assert '<a href="../pipelines/p/">p</a></td><td class="words">zoo</td><td>20' in text
    links = _Links()
    links.feed(text)
    elsewhere = [link for link in links.found if not link.startswith("#")]
    assert {link.removeprefix("../") for link in elsewhere} == {
        "reports/properties_told_from_weights/report.html",
        "reports/transfer/transfer.html",
        "audits/an_audit_of_generators/audit.html",
        "sweeps/a_sweep/sweep.html",
        "zoos/drawn/",
        "zoos/both/",
        "exports/e/",
        "pipelines/p/",
        "summary.md",
    }
    for kind, title in (("reports", "transfer"), ("audits", "an audit of generators")):
        said = f"<b>{title}</b><br><code>{kind}</code> say 5&nbsp;&plusmn;&nbsp;1&nbsp;% &lt;"
        assert said in text


def test_commands_and_links_of_what_was_made_elsewhere_are_left_out(tmp_path):
    (tmp_path / "zoos" / "z").mkdir(parents=True)
    assert commands_of(tmp_path, "r", zoo="z", samples=["files"]) == [
        "dwf evaluate --config reports/r/config.yaml --name r"
    ]
    found = links_of(tmp_path, zoo="z", samples=["files"])
    assert found == [("all reports", tmp_path / INDEX), ("zoo z", tmp_path / "zoos" / "z")]
