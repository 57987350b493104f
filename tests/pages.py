"""Pages of reports as tests read them."""

from pathlib import Path


def read_page(file: Path) -> str:
    """Return a page without what is for the eye alone: spaces that do not break, alignment."""
    text = file.read_text(encoding="utf-8").replace("&nbsp;", " ")
    return text.replace(' class="left"', "").replace("<wbr>", "")
