"""The documentation site builds without a warning, and is whole.

Its links are followed in the built files by a parser of its own, and the reference is held against
the classes and functions as Python has them.
"""

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import dwf
from tests.documentation import PAGES, ROOT

SITE = ROOT / "docs" / "site"
pytestmark = pytest.mark.slow  # a build: half a minute on one core


class Page(HTMLParser):
    """Anchors, links and words of a built page."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.ids, self.links, self._words = path, set(), set(), []
        self.feed(path.read_text())
        self.words = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {given.get("id")}
        self.links |= {given[key] for key in ("href", "src") if given.get(key)}

    def handle_data(self, data: str) -> None:
        self._words.append(data)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, SITE / "build.py", "--out", out], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return out


@pytest.fixture(scope="module")
def pages(built) -> dict[str, Page]:
    html = built / "html"
    return {str(path.relative_to(html)): Page(path) for path in html.rglob("*.html")}


def test_every_page_of_the_repository_is_there_and_in_the_menu(pages):
    front = pages["index.html"]
    for page in PAGES:
        place = str(page.relative_to(ROOT).with_suffix(".html"))
        if place != "README.html":
            assert place in pages and place in front.links


def test_every_link_leads_to_a_file_and_a_place_in_it(built, pages):
    html = built / "html"
    for page in pages.values():
        for link in page.links:
            path, _, anchor = link.partition("#")
            if link.startswith(("http:", "https:", "data:", "mailto:")):
                continue
            file = (
                (page.path.parent / unquote(path.partition("?")[0])).resolve()
                if path
                else page.path
            )
            assert file.exists() and file.is_relative_to(html), f"{page.path}: {link}"
            if anchor and file.suffix == ".html":
                assert unquote(anchor) in pages[str(file.relative_to(html))].ids, link


def test_nothing_is_fetched_from_elsewhere(pages):
    """Only links that a reader follows leave the site."""
    for page in pages.values():
        text = page.path.read_text()
        assert 'src="http' not in text and 'rel="stylesheet" type="text/css" href="http' not in text


@pytest.mark.parametrize("name", dwf.PUBLIC)
def test_a_public_name_stands_with_its_first_sentence(pages, name):
    page = pages["reference/python.html"]
    assert f"dwf.{name}" in page.ids
    first = inspect.getdoc(getattr(dwf, name)).split("\n\n")[0]
    assert plain(first) in plain(page.words)


def test_every_setting_stands_with_its_docstring(pages):
    count = 0
    for path in [*ROOT.glob("dwf/**/config.py"), *ROOT.glob("dwf/**/*_config.py")]:
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        page = pages[f"reference/settings/{module.__name__}.html"]
        for name, kind in vars(module).items():
            if not dataclasses.is_dataclass(kind) or kind.__module__ != module.__name__:
                continue
            for key in set(inspect.get_annotations(kind)) - {"_"}:
                assert f"{module.__name__}.{name}.{key}" in page.ids
                count += 1
    assert count > 400, "settings of all packages"


def test_what_a_function_returns_is_words_and_no_type(pages):
    """The first line of a docstring's `Returns` may have a colon, as that of `Generator.fit`."""
    words = pages["reference/python.html"].words
    assert "Return type" not in words and "What was measured, plain data: the codec" in words


def test_the_reference_begins_with_links_to_its_parts(pages):
    for name in dwf.PUBLIC:
        assert f"#dwf.{name}" in pages["reference/python.html"].links
    settings = pages["reference/settings/dwf.evaluation.config.html"]
    assert settings.words.index("On this page") < settings.words.index("With which running")


def test_a_number_keeps_its_spread_and_unit_on_one_line(pages):
    """`1.209 +- 0.051` is cut by the end of a line in the source; code stays as it is."""
    results = pages["docs/results.html"].path.read_text()
    assert "1.209\u00a0\u00b1\u00a00.051" in results and "86.4\u00a0%" in results
    assert '<td class="number"><p>96.22\u00a0\u00b1\u00a00.44</p></td>' in results
    assert not re.search(r"\d %|\d \+- \d", re.sub(r"<(code|pre).*?</\1>", "", results, flags=re.S))


def test_a_link_to_a_page_bears_its_title(pages):
    front = pages["index.html"].words
    assert "More: Start here ." in front and "docs/start.md" not in front
    assert "Tutorials Adding a method" in front


def plain(text: str) -> str:
    """Return letters and digits alone: quotes, code and spaces are set in another way."""
    return "".join(each for each in text if each.isalnum())


def test_links_that_lead_nowhere_fail_the_build(built):
    page = built / "source" / "docs" / "sweeps.md"
    page.write_text(f"{page.read_text()}\n[lost](nowhere.md) [lost](start.md#no-such-heading)\n")
    folders = ["-c", SITE, "-d", built / "html" / ".doctrees", built / "source", built / "again"]
    ran = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "dummy", *folders, page],
        capture_output=True,
        text=True,
    )
    assert ran.returncode != 0
    for lost in ("nowhere.md", "no-such-heading"):
        assert any("sweeps.md" in line and lost in line for line in ran.stderr.splitlines())
