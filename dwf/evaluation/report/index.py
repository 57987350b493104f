"""The one page over everything in a root folder: reports/index.html, of zoos, runs, reports.

It is written anew whenever a report is finished, from what the folders say of themselves.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape, unescape
from pathlib import Path

from dwf.errors import DwfError
from dwf.evaluation.report.html import as_html, paragraphs, whole_page
from dwf.files import read_json, refuse_irregular
from dwf.generators.config import GeneratorConfig
from dwf.plain import Json
from dwf.run_folder import replacing_alone
from dwf.settings import build, read_yaml
from dwf.zoo.facts import Facts

FILE = Path("reports") / "index.html"
_HEAD = 2000  # letters of a page that hold its title
_LONGEST = 220  # letters of a report's first sentence


@dataclass(frozen=True)
class Entry:
    """A folder of a kind, as a row of the page."""

    name: str
    page: str
    """Where its name leads to, seen from the page."""
    what: str
    """Words that say what it is."""
    state: str
    """When it was finished; or that it is not."""
    at: float
    """The same in seconds, by which rows are ordered; 0 while it is not finished."""


def write_index(root: Path) -> Path:
    """Write the page over all zoos, runs, reports, audits, sweeps and fine-tunings; return it.

    Args:
        root: folder that holds them. A folder that cannot be read is named with no words.
    """
    root = Path(root)
    body = [f"<h1>{escape(root.resolve().name)}</h1>"]
    for title, entries in sections(root).items():
        if entries:
            body += [f"<h2>{title}</h2>", _table(entries)]
    if len(body) == 1:
        body += paragraphs(["There is nothing here yet: begin with dwf zoo."])
    page = whole_page("zoos, runs, reports", body)
    with replacing_alone(root / FILE) as partial:
        partial.write_text(page, encoding="utf-8")
    return root / FILE


def sections(root: Path) -> dict[str, list[Entry]]:
    """Return title of a section -> its rows, the latest first, those that are not finished last."""
    found = {
        "Reports": [*_pages(root, "reports", "report.html"), *_pages(root, "audits", "audit.html")],
        "Sweeps": list(_pages(root, "sweeps", "sweep.html")),
        "Fine-tunings": list(_pages(root, "finetunes", "report.html")),
        "Generators and predictors": list(_runs(root)),
        "Zoos": list(_zoos(root)),
    }
    return {t: sorted(e, key=lambda one: (-one.at, one.name)) for t, e in found.items()}


def _pages(root: Path, kind: str, file: str) -> Iterator[Entry]:
    for folder in _folders(root, kind):
        done = _first(folder / "done.json", folder / "run" / "done.json", folder / file)
        page = f"../{kind}/{folder.name}/" + (file if (folder / file).exists() else "")
        said = _told(done).get("headline") or [_title(folder / file)]
        yield _entry(folder.name, page, what=str(said[0]), done=done)


def _title(page: Path) -> str:
    """Return the title of a page without the name of its report."""
    try:
        refuse_irregular(page)
        with open(page, encoding="utf-8", errors="replace") as file:
            found = re.search("<title>[^:<]*: ([^<]*)</title>", file.read(_HEAD))
    except (OSError, DwfError):
        return ""
    return unescape(found[1]) if found else ""


def _runs(root: Path) -> Iterator[Entry]:
    for folder in _folders(root, "runs"):
        settings = folder / "config.yaml"
        words = ""
        if (folder / "generator.json").exists() and settings.exists():
            try:
                config = build(GeneratorConfig, read_yaml(settings), source=str(settings))
                words = f"{config.title}, learnt from {config.zoo}"
            except DwfError:
                words = "a generator"
        page = f"../runs/{folder.name}/"
        yield _entry(folder.name, page, what=words, done=folder / "done.json")


def _zoos(root: Path) -> Iterator[Entry]:
    for folder in _folders(root, "zoos"):
        if not (folder / "zoo.json").exists():
            continue
        done, words = folder / "run" / "done.json", ""
        try:
            facts = Facts.read(folder)
            words = f"{facts.layout.size:,} weights"
            words += f" on {facts.data.title}" if facts.data else ""
        except DwfError:
            pass
        rows = _told(done).get("rows")
        words = f"{rows:,} networks of {words}" if rows and words else words
        yield _entry(folder.name, f"../zoos/{folder.name}/", what=words, done=done)


def _folders(root: Path, kind: str) -> list[Path]:
    place = root / kind
    return sorted(each for each in place.iterdir() if each.is_dir()) if place.is_dir() else []


def _first(*files: Path) -> Path:
    return next((file for file in files if file.exists()), files[0])


def _told(done: Path) -> dict[str, Json]:
    try:
        return read_json(done)
    except (OSError, DwfError):  # not finished, or being written by somebody else
        return {}


def _entry(name: str, page: str, *, what: str, done: Path) -> Entry:
    short = what if len(what) <= _LONGEST else f"{what[:_LONGEST]} ..."
    if not done.exists():
        return Entry(name, page, what=short, state="not finished", at=0)
    at = done.stat().st_mtime
    moment = datetime.fromtimestamp(at, UTC)
    return Entry(name, page, what=short, state=f"{moment:%Y-%m-%d %H:%M}", at=at)


def _table(entries: list[Entry]) -> str:
    rows = "".join(
        f'<tr><td><a href="{escape(one.page)}">{escape(one.name)}</a></td>'
        f'<td class="words">{as_html(one.what)}</td><td>{one.state}</td></tr>'
        for one in entries
    )
    head = "<tr><th>name</th><th class='words'>what</th><th>finished (UTC)</th></tr>"
    return f'<div class="scroll"><table>{head}{rows}</table></div>'
