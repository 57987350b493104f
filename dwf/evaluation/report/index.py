"""The one page over everything in a root folder: reports/index.html, of zoos, runs, reports.

It is written anew whenever a report is finished, from what the folders say of themselves.
"""

import contextlib
import errno
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote

from dwf.errors import DwfError
from dwf.evaluation.report.html import as_html, paragraphs, whole_page
from dwf.files import read_json, refuse_irregular, told_by
from dwf.generators.config import GeneratorConfig
from dwf.metrics import logger
from dwf.plain import Json
from dwf.run_folder import replacing_alone
from dwf.settings import build, read_yaml
from dwf.system_errors import sentence_of
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
    with replacing_alone(root / FILE) as written:
        written.write_text(page, encoding="utf-8")
    return root / FILE


def renew_index(root: Path) -> None:
    """Write the page anew after something was finished; where that is another's, tell so."""
    try:
        write_index(root)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        logger.warning("%s is as it was: %s", Path(root) / FILE, sentence_of(error))


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
        yield _entry(folder, partial(_of_page, file=file), page=file)


def _of_page(folder: Path, *, file: str) -> str:
    said = _told(_done(folder)).get("headline") or [_title(folder / file)]
    return str(said[0])


def _title(page: Path) -> str:
    """Return the title of a page without the name of its report."""
    if not page.exists():
        return ""
    refuse_irregular(page)
    with open(page, encoding="utf-8", errors="replace") as file:
        found = re.search("<title>[^:<]*: ([^<]*)</title>", file.read(_HEAD))
    return unescape(found[1]) if found else ""


def _runs(root: Path) -> Iterator[Entry]:
    for folder in _folders(root, "runs"):
        yield _entry(folder, _of_run)


def _of_run(folder: Path) -> str:
    settings = folder / "config.yaml"
    if not ((folder / "generator.json").exists() and settings.exists()):
        return ""
    try:
        config = build(GeneratorConfig, read_yaml(settings), source=str(settings))
    except DwfError:
        return "a generator"
    return f"{config.title}, learnt from {config.zoo}"


def _zoos(root: Path) -> Iterator[Entry]:
    for folder in _folders(root, "zoos"):
        if _has(folder, "zoo.json"):
            yield _entry(folder, _of_zoo)


def _of_zoo(folder: Path) -> str:
    facts, rows = Facts.read(folder), _told(_done(folder)).get("rows")
    words = f"{facts.layout.size:,} weights"
    words += f" on {facts.data.title}" if facts.data else ""
    return f"{rows:,} networks of {words}" if rows else words


def _folders(root: Path, kind: str) -> list[Path]:
    place = root / kind
    return sorted(each for each in place.iterdir() if _is_folder(each)) if place.is_dir() else []


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder, as far as this user may look."""
    try:
        return path.is_dir()
    except OSError:
        return True


def _has(folder: Path, name: str) -> bool:
    """Whether a folder has a file of a name, as far as this user may look."""
    try:
        return (folder / name).exists()
    except OSError:
        return True


def _done(folder: Path) -> Path:
    files = (folder / "done.json", folder / "run" / "done.json")
    return next((file for file in files if file.exists()), files[0])


def _told(done: Path) -> dict[str, Json]:
    try:
        return read_json(done)
    except (OSError, DwfError):  # not finished, or being written by somebody else
        return {}


def _entry(folder: Path, tell: Callable[[Path], str], *, page: str = "") -> Entry:
    """Return the row of a folder, with what `tell` says of it.

    Args:
        folder: the folder.
        tell: returns words; what it cannot read, or was altered, is named with none.
        page: file in it that its name leads to, where that is there.
    """
    what, at, shown = "", 0.0, ""
    with contextlib.suppress(OSError, DwfError), told_by(folder):
        what = tell(folder)
    with contextlib.suppress(OSError):
        shown = page if page and (folder / page).exists() else ""
        done = _done(folder)
        if done.exists() or shown:
            at = (done if done.exists() else folder / shown).stat().st_mtime
    short = what if len(what) <= _LONGEST else f"{what[:_LONGEST]} ..."
    state = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}" if at else "not finished"
    place = f"../{folder.parent.name}/{quote(folder.name)}/{shown}"
    return Entry(folder.name, place, what=short, state=state, at=at)


def _table(entries: list[Entry]) -> str:
    rows = "".join(
        f'<tr><td><a href="{escape(one.page)}">{escape(one.name)}</a></td>'
        f'<td class="words">{as_html(one.what)}</td><td>{one.state}</td></tr>'
        for one in entries
    )
    head = "<tr><th>name</th><th class='words'>what</th><th>finished (UTC)</th></tr>"
    return f'<div class="scroll"><table>{head}{rows}</table></div>'
