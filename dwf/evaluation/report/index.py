"""The one page over everything in a root folder: reports/index.html, of zoos, runs, reports.

It is written anew whenever a report is finished, from what the folders say of themselves.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape, unescape
from pathlib import Path

import numpy as np

from dwf.errors import DwfError
from dwf.evaluation.report.html import as_html, paragraphs, whole_page
from dwf.evaluation.report.style import STYLE_SHEET
from dwf.files import read_json, refuse_irregular
from dwf.generators.config import GeneratorConfig
from dwf.plain import Json
from dwf.run_folder import replacing_alone
from dwf.settings import build, read_yaml
from dwf.zoo.manifest import read_manifest
from dwf.zoo.store import Zoo

FILE = Path("reports") / "index.html"
_HEAD = len(STYLE_SHEET) + 8000  # letters of a page that hold its title and its first sentences
_LONGEST = 220  # letters of a report's first sentences
_PAGES = ("report.html", "audit.html", "sweep.html", "transfer.html")

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
    with replacing_alone(root / FILE) as partial:
        partial.write_text(page, encoding="utf-8")
    return root / FILE


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
        yield _entry("summary", "summary.md", what="every row of every report", done=file)


def _pages(root: Path, kind: str) -> Iterator[Entry]:
    for folder in _folders(root, kind):
        file = _first(*(folder / name for name in _PAGES))
        page = f"../{kind}/{folder.name}/" + (file.name if file.exists() else "")
        ends = [each / "done.json" for each in (folder, folder / "run")]
        done = _first(*ends, folder / "export.json", file)
        about, said = _read_page(file)
        said = (_told(done).get("headline") or [said])[0]
        yield _entry(folder.name, page, what=str(said), done=done, about=about)


def _pipelines(root: Path) -> Iterator[Entry]:
    for folder in _folders(root, "pipelines"):
        try:
            told = read_yaml(folder / "config.yaml")
        except (DwfError, OSError):
            told = {}
        report = root / "reports" / folder.name / "done.json"
        done = report if told.get("evaluate") else folder / "seconds.json"
        words = ", ".join(key for key in told if told[key] and key not in _NO_STAGES)
        yield _entry(folder.name, f"../pipelines/{folder.name}/", what=words, done=done)


def _read_page(page: Path) -> tuple[str, str]:
    """Return the title of a page without the name of its report, and its first sentences."""
    try:
        refuse_irregular(page)
        with open(page, encoding="utf-8", errors="replace") as file:
            text = file.read(_HEAD)
    except (OSError, DwfError):
        return "", ""
    title = re.search("<title>[^:<]*: ([^<]*)</title>", text)
    said = re.search('<p class="headline">(.*?)</p>', text, re.DOTALL)
    words = re.sub("</?code>", "`", said[1]) if said else ""
    return unescape(title[1]) if title else "", unescape(re.sub("<[^>]*>", "", words))


def _runs(root: Path) -> Iterator[Entry]:
    for folder in _folders(root, "runs"):
        settings, done, words = folder / "config.yaml", folder / "done.json", ""
        if (folder / "experiment.json").exists():
            done, words = folder / "run" / "done.json", "predictors of properties"
        elif (folder / "generator.json").exists() and settings.exists():
            try:
                config = build(GeneratorConfig, read_yaml(settings), source=str(settings))
                words = f"{config.title}, learnt from {config.zoo}"
            except DwfError:
                words = "a generator"
        yield _entry(folder.name, f"../runs/{folder.name}/", what=words, done=done)


def _zoos(root: Path) -> Iterator[Entry]:
    for folder in _folders(root, "zoos"):
        if not (folder / "zoo.json").exists():
            continue
        done = _first(folder / "run" / "done.json", folder / "zoo.h5")
        try:
            words = _words_of_zoo(folder)
        except (DwfError, OSError):  # not whole, or being written by somebody else
            words = ""
        yield _entry(folder.name, f"../zoos/{folder.name}/", what=words, done=done)


def _words_of_zoo(folder: Path) -> str:
    several = read_manifest(folder)
    if several:
        return f"a family of {', '.join(several.values())}"
    zoo = Zoo.open(folder)
    networks = len(np.unique(zoo.columns["network"]))
    rows = "" if networks == len(zoo) else f" in {len(zoo):,} rows"
    where = f" on {zoo.facts.data.title}" if zoo.facts.data else ""
    return f"{networks:,} networks{rows} of {zoo.layout.size:,} weights{where}"


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


def _entry(name: str, page: str, *, what: str, done: Path, about: str = "") -> Entry:
    short = what if len(what) <= _LONGEST else f"{what[:_LONGEST].rsplit(' ', 1)[0]} ..."
    if not done.exists():
        return Entry(name, page, what=short, state="not finished", at=0, about=about)
    at = done.stat().st_mtime
    moment = datetime.fromtimestamp(at, UTC)
    return Entry(name, page, what=short, state=f"{moment:%Y-%m-%d %H:%M}", at=at, about=about)


def _table(entries: list[Entry]) -> str:
    rows = "".join(
        f'<tr><td><a href="{escape(one.page)}">{escape(one.name)}</a></td>'
        f'<td class="words">{_about(one)}{as_html(one.what)}</td><td>{one.state}</td></tr>'
        for one in entries
    )
    head = "<tr><th>name</th><th class='words'>what</th><th>finished (UTC)</th></tr>"
    return f'<div class="scroll"><table class="named">{head}{rows}</table></div>'


def _about(one: Entry) -> str:
    return f"<b>{escape(one.about)}</b><br>" if one.about else ""
