"""The one page over everything in a root folder: reports/index.html, of zoos, runs, reports.

It is written anew whenever a report is finished, from what the folders say of themselves.
"""

import contextlib
import errno
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from dwf.errors import DwfError
from dwf.evaluation.report.html import (
    as_html,
    name_html,
    named_table,
    paragraphs,
    whole_page,
)
from dwf.evaluation.report.style import STYLE_SHEET
from dwf.files import read_json, refuse_irregular, told_by
from dwf.flags import name_and_root
from dwf.generators.config import GeneratorConfig
from dwf.metrics import logger
from dwf.names import folders_in
from dwf.plain import Json
from dwf.run_folder import replacing_alone
from dwf.settings import build, read_yaml
from dwf.system_errors import sentence_of
from dwf.zoo.manifest import read_manifest
from dwf.zoo.store import Zoo

INDEX = Path("reports") / "index.html"
_HEAD = len(STYLE_SHEET) + 8000  # letters of a page that hold its title and its first sentences
_LONGEST = 220  # letters of a report's first sentences
_PAGES = ("report.html", "audit.html", "sweep.html", "transfer.html")
_NOT_FINISHED = "not finished"
_NO_STAGES = ("seed", "seeds", "set")  # settings of a pipeline that name no stage


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
    about: str = ""
    """Subject of a report, as `an audit of generators`; empty for what is none."""


@dataclass(frozen=True)
class _Words:
    """Words that a folder says of itself, see `Entry`."""

    what: str = ""
    about: str = ""


def write_index(root: Path) -> Path:
    """Write the page over all that stages have made in a root folder; return it.

    Args:
        root: folder that holds it. A folder that cannot be read is named with no words.
    """
    root = Path(root)
    body = [f"<h1>All in {escape(root.resolve().name)}</h1>"]
    for title, entries in sections(root).items():
        if entries:
            body += [f"<h2>{title}</h2>", _table(entries)]
    if len(body) == 1:
        body += paragraphs(["There is nothing here yet: begin with dwf zoo."])
    page = whole_page("zoos, runs, reports", body)
    with replacing_alone(root / INDEX) as written:
        written.write_text(page, encoding="utf-8")
    return root / INDEX


def renew_index(root: Path) -> None:
    """Write the page anew after something was finished; where that is another's, tell so."""
    try:
        write_index(root)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        logger.warning("%s is as it was: %s", Path(root) / INDEX, sentence_of(error))


def sections(root: Path) -> dict[str, list[Entry]]:
    """Return title of a section -> its rows, the latest first, those that are not finished last."""
    found = {
        "Reports": [*_summaries(root), *_pages(root, "reports"), *_pages(root, "audits")],
        "Sweeps": list(_pages(root, "sweeps")),
        "Fine-tunings": list(_pages(root, "finetunes")),
        "Pipelines": list(_pipelines(root)),
        "Generators and predictors": list(_runs(root)),
        "Zoos": list(_zoos(root)),
        "Exports": list(_pages(root, "exports")),
    }
    return {t: sorted(e, key=lambda one: (-one.at, one.name)) for t, e in found.items()}


def _summaries(root: Path) -> Iterator[Entry]:
    """Yield the table over several pipelines, where one was written."""
    for file in (root / "reports").glob("summary.md"):
        state, at = _finished(file)
        yield Entry("summary", file.name, what="every row of every report", state=state, at=at)


def _pages(root: Path, kind: str) -> Iterator[Entry]:
    for folder in folders_in(root / kind):
        yield _entry(folder, _of_page, kind=kind, ends=(folder / "export.json",), pages=_PAGES)


def _of_page(folder: Path) -> _Words:
    about, said = _read_page(_first(*(folder / name for name in _PAGES)))
    headline = _told(_first(*_ends(folder))).get("headline") or [said]
    return _Words(str(headline[0]), about)


def _read_page(page: Path) -> tuple[str, str]:
    """Return the title of a page without the name of its report, and its first sentences."""
    if not page.exists():
        return "", ""
    refuse_irregular(page)
    with open(page, encoding="utf-8", errors="replace") as file:
        text = file.read(_HEAD)
    title = re.search("<title>[^:<]*: ([^<]*)</title>", text)
    said = re.search('<p class="headline">(.*?)</p>', text, re.DOTALL)
    words = re.sub("</?code>", "`", said[1]) if said else ""
    words = unescape(re.sub("<[^>]*>", "", words.replace("&nbsp;", " ").replace("&plusmn;", "+-")))
    return unescape(title[1]) if title else "", words


def _pipelines(root: Path) -> Iterator[Entry]:
    for folder in folders_in(root / "pipelines"):
        report = root / "reports" / folder.relative_to(root / "pipelines") / "done.json"
        ends = (report, folder / "seconds.json")
        yield _entry(folder, _of_pipeline, kind="pipelines", ends=ends)


def _of_pipeline(folder: Path) -> _Words:
    told = read_yaml(folder / "config.yaml")
    return _Words(", ".join(key for key in told if told[key] and key not in _NO_STAGES))


def _runs(root: Path) -> Iterator[Entry]:
    for folder in folders_in(root / "runs"):
        yield _entry(folder, _of_run, kind="runs")


def _of_run(folder: Path) -> _Words:
    if (folder / "experiment.json").exists():
        return _Words("predictors of properties")
    settings = folder / "config.yaml"
    if not ((folder / "generator.json").exists() and settings.exists()):
        return _Words()
    try:
        config = build(GeneratorConfig, read_yaml(settings), source=str(settings))
    except DwfError:
        return _Words("a generator")
    return _Words(f"{config.title}, learnt from {config.zoo}")


def _zoos(root: Path) -> Iterator[Entry]:
    for folder in folders_in(root / "zoos"):
        if _is_there(folder / "zoo.json"):
            yield _entry(folder, _of_zoo, kind="zoos", ends=(folder / "zoo.h5",))


def _of_zoo(folder: Path) -> _Words:
    several = read_manifest(folder)
    if several:
        return _Words(f"a family of {', '.join(several.values())}")
    zoo = Zoo.open(folder)
    networks = len(np.unique(zoo.columns["network"]))
    rows = "" if networks == len(zoo) else f" in {len(zoo):,} rows"
    where = f" on {zoo.facts.data.title}" if zoo.facts.data else ""
    return _Words(f"{networks:,} networks{rows} of {zoo.layout.size:,} weights{where}")


def _is_there(path: Path) -> bool:
    """Whether a file is there, as far as this user may look."""
    try:
        return path.exists()
    except OSError:
        return True


def _ends(folder: Path) -> tuple[Path, Path]:
    """Return where a stage says that it has ended."""
    return folder / "done.json", folder / "run" / "done.json"


def _first(*files: Path) -> Path:
    """Return the first of these that is there, or the first."""
    return next((file for file in files if file.exists()), files[0])


def _told(done: Path) -> dict[str, Json]:
    try:
        return read_json(done)
    except (OSError, DwfError):  # not finished, or being written by somebody else
        return {}


def _entry(
    folder: Path,
    tell: Callable[[Path], _Words],
    *,
    kind: str,
    ends: Sequence[Path] = (),
    pages: Sequence[str] = (),
) -> Entry:
    """Return the row of a folder, with what `tell` says of it.

    Args:
        folder: the folder.
        tell: returns words; what it cannot read, or was altered, is named with none.
        kind: the folder under the root that it lies in.
        ends: further files that are there once it is finished.
        pages: files in it of which one is its page, to which its name leads where that is there.
    """
    words, state, at, shown = _Words(), _NOT_FINISHED, 0.0, ""
    with contextlib.suppress(OSError, DwfError), told_by(folder):
        words = tell(folder)
    with contextlib.suppress(OSError):
        own = [folder / name for name in pages if (folder / name).exists()]
        shown = own[0].name if own else ""
        state, at = _finished(_first(*_ends(folder), *ends, *own))
    what = words.what
    short = what if len(what) <= _LONGEST else f"{what[:_LONGEST].rsplit(' ', 1)[0]} ..."
    name, _ = name_and_root(folder, kind)
    place = f"../{kind}/{quote(name)}/{shown}"
    return Entry(name, place, what=short, state=state, at=at, about=words.about)


def _finished(done: Path) -> tuple[str, float]:
    """Return when something was finished, in words and in seconds."""
    if not done.exists():
        return _NOT_FINISHED, 0.0
    at = done.stat().st_mtime
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}", at


def _table(entries: list[Entry]) -> str:
    rows = "".join(
        f'<tr><td><a href="{escape(one.page)}">{name_html(one.name)}</a></td>'
        f'<td class="words">{_about(one)}{as_html(one.what)}</td><td>{one.state}</td></tr>'
        for one in entries
    )
    head = "<tr><th>name</th><th class='words'>what</th><th>finished (UTC)</th></tr>"
    return named_table(f"{head}{rows}", [one.name for one in entries])


def _about(one: Entry) -> str:
    return f"<b>{escape(one.about)}</b><br>" if one.about else ""
