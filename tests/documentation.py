"""The pages of the documentation, and what is in them."""

import re
from pathlib import Path

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
    """Return every launch command that stands by itself on a line of some page, once each."""
    found = set()
    for page in PAGES:
        for line in re.findall(r"^    (python launch/.*)$", page.read_text(), re.MULTILINE):
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


def anchors(page: Path) -> set[str]:
    """Return what can follow `#` in a link to a page, as GitHub makes it of its headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        again = 1
        anchor = words
        while anchor in found:
            anchor, again = f"{words}-{again}", again + 1
        found.add(anchor)
    return found
