"""Sphinx's settings for the site; `docs/site/build.py` writes the pages that it reads.

Docstrings are the reference: Google style, with code in single back-ticks and no other markup.
"""

import dataclasses
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

import dwf

project = "dwf"
copyright = "the dwf authors"
version = release = dwf.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"dwf {release}"
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False
# No fonts, scripts or badges of other hosts: a built site is read without a network.
html_theme_options = {"navigation_with_keys": True}

myst_heading_anchors = 6  # anchors as GitHub makes them
default_role = "code"  # one back-tick in a docstring is code, as in Markdown
pygments_style, pygments_dark_style = "friendly", "monokai"
highlight_language = "none"  # indented blocks are commands
python_maximum_signature_line_length = 80

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True


def _no_signature_of_settings(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str, returned: str
) -> tuple[str, None] | None:
    """Leave out the signature of a dataclass: its fields follow, each with its docstring."""
    if what == "class" and dataclasses.is_dataclass(value):
        return "", None
    return None


def _plain_docstring(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Make reStructuredText of a docstring, in place: sections become lists, words stay words.

    Napoleon's own extension would take what stands before a colon in a field's docstring for the
    field's type, so fields are left to autodoc.
    """
    code_and_words = re.split(r"(`[^`]+`)", "\n".join(lines))
    code_and_words[::2] = [re.sub(r"([*|])(?=\S)", r"\\\1", words) for words in code_and_words[::2]]
    lines[:] = "".join(code_and_words).splitlines()
    if what not in ("attribute", "data", "property"):
        google = GoogleDocstring(lines, Config(), app, what, name, value, options)
        lines[:] = google.lines()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what the settings above cannot say."""
    app.connect("autodoc-process-signature", _no_signature_of_settings)
    app.connect("autodoc-process-docstring", _plain_docstring)
    return {"parallel_read_safe": True}
