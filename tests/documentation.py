"""The pages of the documentation, and what is in them."""

import re
from pathlib import Path

from dwf.commands import COMMANDS

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "docs" / "extending.md"
"""Its files and pieces of code are examples of what somebody else will write."""
TUTORIALS = tuple(sorted((ROOT / "docs" / "tutorials").glob("*.md")))
"""Pages whose pieces belong together; launch/test_tutorials.py follows them whole."""
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "configs" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *TUTORIALS,
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands() -> list[str]:
    """Return every command of a stage that stands by itself on a line of some page, once each.

    What is written as `dwf zoo ...` is given as `python launch/zoo.py ...`.
    """
    found = set()
    for page in PAGES:
        stages = "|".join(name for name, command in COMMANDS.items() if command.reads_words)
        said = rf"^    dwf ({stages}) (?!--help)"
        text = re.sub(said, r"    python launch/\1.py ", page.read_text(), flags=re.M)
        for line in re.findall(r"^    (python launch/.*)$", text, re.MULTILINE):
            found.add(line.partition("#")[0].replace(" --dry-run", "").strip())
    return sorted(found)


def programs() -> dict[str, str]:
    """Return the Python examples: page and number -> text."""
    return {
        f"{name_of(page)}-{number}": program
        for page in PAGES
        if page not in (RECIPES, *TUTORIALS)
        for number, program in enumerate(fenced(page.read_text(), "python"))
    }


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """Return a page without its code: blocks, indented commands, and words in backticks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "``", text)


def headings(text: str) -> list[tuple[int, str, str]]:
    """Return (level, words, anchor) of a page's headings, anchors as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found: list[tuple[int, str, str]] = []
    taken: set[str] = set()
    for marks, words in re.findall(r"^(#+) (.*)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
        again = 1
        anchor = slug
        while anchor in taken:
            anchor, again = f"{slug}-{again}", again + 1
        taken.add(anchor)
        found.append((len(marks), words, anchor))
    return found


def anchors(page: Path) -> set[str]:
    """Return what can follow `#` in a link to a page."""
    return {anchor for _, _, anchor in headings(page.read_text())}
