"""Write the line "On this page" at the top of long pages: links to their headings.

python -m tests.page_contents --write
"""

import argparse
import re
import textwrap
from pathlib import Path

from tests.documentation import PAGES, ROOT, headings, name_of

LONG = 150
"""Lines of a page above which it has contents."""
FEW = 4
"""Sections below which their parts are listed too."""
START = "On this page: "
_DOORS = {ROOT / "README.md"}  # has an index of the documentation instead


def without_contents(text: str) -> str:
    return re.sub(rf"^{START}.*?\n\n", "", text, count=1, flags=re.DOTALL | re.MULTILINE)


def with_contents(page: Path) -> str:
    """Return a page's text with its contents under its title, if it is long enough for some."""
    text = without_contents(page.read_text())
    if len(text.splitlines()) <= LONG or page in _DOORS:
        return text
    title, rest = text.split("\n\n", maxsplit=1)
    return f"{title}\n\n{contents(text)}\n\n{rest}"


def contents(text: str) -> str:
    sections = [each for each in headings(text) if each[0] == 2]
    if len(sections) < FEW:
        sections = [each for each in headings(text) if each[0] in (2, 3)]
    links = [f"[{words}](#{anchor})" for _, words, anchor in sections]
    glued = (START + ", ".join(links) + ".").replace(" ", "\0")  # a link stays on one line
    broken = glued.replace(f"{START.strip()}\0", f"{START}").replace("),\0[", "), [")
    lines = textwrap.wrap(broken, 100, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write them; else name the pages")
    write = parser.parse_args().write
    for page in PAGES:
        wanted = with_contents(page)
        if wanted != page.read_text():
            print(name_of(page))
            if write:
                page.write_text(wanted)


if __name__ == "__main__":
    main()
