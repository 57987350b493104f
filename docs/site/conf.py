"""Sphinx's settings for the site; `docs/site/build.py` writes the pages that it reads.

Docstrings are the reference: Google style, with code in single back-ticks and no other markup.
"""

import dataclasses
import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.typing import stringify_annotation

import dwf
from dwf.plain import Json
from dwf.settings import Bounds

project = "dwf"
copyright = "the dwf authors"
version = release = dwf.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"dwf {release}"
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False
toc_object_entries = False  # members in the menu cost a tenth of the build, and hide the pages
# No fonts, scripts or badges of other hosts: a built site is read without a network.
html_theme_options = {"navigation_with_keys": True}
html_static_path, html_css_files = ["site.css"], ["site.css"]

myst_heading_anchors = 6  # anchors as GitHub makes them
default_role = "code"  # one back-tick in a docstring is code, as in Markdown
pygments_style, pygments_dark_style = "friendly", "monokai"
highlight_language = "none"  # indented blocks are commands
python_maximum_signature_line_length = 80

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_display_short_literal_types = True

_JSON = stringify_annotation(Json, "smart").replace("~", "")  # as autodoc does
_BOUNDED = re.compile(
    r"Annotated\[(\w+), Bounds\(low=(?P<low>[^,]+), high=(?P<high>[^,]+), open=(?P<open>\w+)\)\]"
)
_MARKED = re.compile(r"Annotated\[(\w+(?:\[[^\[\]]*\])?), [^\[\]]*\]")  # marks of the command line
# A value with its spread, its unit and its interval: `96.01 +- 0.57`, `85.4 % [82.0, 88.2]`.
_SPREAD, _INTERVAL = r"\s\+-\s\d[\d.]*", r"\[[-+]?[\d.]+,\s[-+]?[\d.]+\]"
_NUMBER = re.compile(rf"[-+]?\d[\d.,]*({_SPREAD})?(\s%)?(\s{_INTERVAL})?")
_NOT_TO_BREAK = re.compile(rf"(?<=\d)({_SPREAD})?\s%|(?<=\d){_SPREAD}|{_INTERVAL}")


class _Docstring(GoogleDocstring):
    """A docstring whose `Returns` are words: what stands before a colon in them is no type."""

    def _consume_returns_section(
        self, preprocess_types: bool = False
    ) -> list[tuple[str, str, list[str]]]:
        lines = self._dedent(self._consume_to_next_section())
        return [("", "", lines)] if lines else []


def _signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str, returned: str
) -> tuple[str, str | None] | None:
    """Return a signature with short types; none for a dataclass, whose fields follow."""
    if what == "class" and dataclasses.is_dataclass(value):
        _keep_made_defaults(value)
        return "", None
    if not signature:  # a field's, a module's
        return None
    return _with_json(signature), returned and _with_json(returned)


def _keep_made_defaults(settings: type) -> None:
    """Give a class the defaults that its fields make anew; autodoc would find a base's instead."""
    for each in dataclasses.fields(settings):
        own = each.name in inspect.get_annotations(settings)
        if own and each.default_factory is not dataclasses.MISSING:
            setattr(settings, each.name, each.default_factory())


def _short_types(app: Sphinx, doctree: nodes.document) -> None:
    """Shorten the types of fields and properties, in place."""
    for node in doctree.findall(addnodes.desc_annotation):
        text = node.astext()
        if _short(text) != text:
            node.children = []
            node += nodes.Text(_short(text))


def _keep_numbers_whole(app: Sphinx, doctree: nodes.document) -> None:
    """Let numbers stay on one line with their unit, spread and interval, in place.

    Cells of tables that hold nothing else are marked, for the style sheet.
    """
    for cell in doctree.findall(nodes.entry):
        if _NUMBER.fullmatch(cell.astext()):
            cell["classes"].append("number")
    for part in list(doctree.findall(nodes.TextElement)):
        if not isinstance(part, (nodes.literal, nodes.FixedTextElement, nodes.Invisible)):
            part[:] = list(_with_whole_numbers(part.children))


def _with_whole_numbers(nodes_of_text: list[nodes.Node]) -> Iterator[nodes.Node]:
    """Yield nodes of which those that hold words are joined: a line may end within a number."""
    for is_words, run in itertools.groupby(nodes_of_text, lambda one: isinstance(one, nodes.Text)):
        if not is_words:
            yield from run
            continue
        whole = _NOT_TO_BREAK.sub(lambda found: re.sub(r"\s", "\u00a0", found[0]), "".join(run))
        yield nodes.Text(whole.replace("\u00a0+-\u00a0", "\u00a0\u00b1\u00a0"))


def _short(types: str) -> str:
    """Return types with the names and ranges that the sources have, not what these stand for."""
    types = _BOUNDED.sub(lambda found: f"{found[1]} ({_bounds(found)})", _with_json(types))
    return _MARKED.sub(r"\1", types)


def _with_json(types: str) -> str:
    """Return types with the alias; a second time, as it names itself, which autodoc follows."""
    return types.replace(_JSON, "Json").replace(_JSON, "Json")


def _bounds(found: re.Match[str]) -> Bounds:
    return Bounds(float(found["low"]), float(found["high"]), found["open"] == "True")


def _plain_docstring(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Make reStructuredText of a docstring, in place: sections become lists, words stay words.

    Napoleon's own extension would take what stands before a colon in a field's docstring for the
    field's type, so fields are left to autodoc.
    """
    if (
        dataclasses.is_dataclass(value) and "Attributes:" in lines
    ):  # its fields follow by themselves
        del lines[lines.index("Attributes:") :]
    code_and_words = re.split(r"(`[^`]+`)", "\n".join(lines))
    code_and_words[::2] = [re.sub(r"([*|])(?=\S)", r"\\\1", words) for words in code_and_words[::2]]
    lines[:] = "".join(code_and_words).splitlines()
    if what not in ("attribute", "data", "property"):
        google = _Docstring(lines, Config(), app, what, name, value, options)
        lines[:] = google.lines()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what the settings above cannot say."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _plain_docstring)
    app.connect("doctree-read", _short_types)
    app.connect("doctree-read", _keep_numbers_whole)
    return {"parallel_read_safe": True}
