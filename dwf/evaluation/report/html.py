"""Parts of pages: HTML that needs nothing else, with the figures in it."""

import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from dwf.evaluation.report.drawing import ONE_COLUMN, TWO_COLUMNS, inline_svg, sized
from dwf.evaluation.report.style import STYLE_SHEET
from dwf.plain import Json

TOP = '<p class="soft top">'
"""How the line of a page's record begins."""
_SECTIONS = 4  # from so many on a page says what is on it
# A space that would part a number from its unit or spread at the end of a line.
_NOT_TO_BREAK = re.compile(r"(?<=\d) (?=%|&plusmn;)|(?<=&plusmn;) (?=\d)")


def whole_page(title: str, body: Sequence[str]) -> str:
    """Return a page of parts, each of them HTML.

    A page of several sections has links to them below the line of its record.
    """
    body = _with_contents(body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE_SHEET}</style></head>"
        "<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _with_contents(body: Sequence[str]) -> list[str]:
    """Return parts of which each heading has an anchor, and the record's line links to them."""
    titles: list[str] = []

    def anchored(heading: re.Match[str]) -> str:
        titles.append(heading[1])
        return f'<h2 id="section-{len(titles)}">{heading[1]}</h2>'

    parts = [re.sub("<h2>(.*?)</h2>", anchored, part) for part in body]
    links = [f'<a href="#section-{n}">{title}</a>' for n, title in enumerate(titles, start=1)]
    if len(links) >= _SECTIONS:
        line = f'<p class="soft">On this page: {" &middot; ".join(links)}</p>'
        after = next((i for i, part in enumerate(parts) if part.startswith(TOP)), 0)
        parts.insert(after + 1, line)
    return parts


def beginning(name: str, headline: Sequence[str]) -> list[str]:
    """Return a report's name, and its headline with the first paragraph written large."""
    heading = f"<h1>Report: {escape(name)}</h1>"
    return [heading, *paragraphs(headline[:1], "headline"), *paragraphs(headline[1:])]


def paragraphs(texts: Sequence[str], kind: str = "") -> list[str]:
    """Return paragraphs of plain words, of a class of the style sheet."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return [f"{opening}{as_html(each)}</p>" for each in texts]


def bullets(lines: Sequence[str]) -> str:
    """Return a list of plain words."""
    return "<ul>" + "".join(f"<li>{as_html(line)}</li>" for line in lines) + "</ul>"


def legend(lines: Sequence[tuple[str, str]]) -> str:
    """Return what stands above a table: a word and what it means, line by line."""
    each = "".join(f"<li><b>{escape(word)}</b>: {as_html(text)}</li>" for word, text in lines)
    return f'<ul class="legend">{each}</ul>'


def as_html(words: str) -> str:
    """Return plain words as HTML: names between back-ticks become code."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(words))
    return _NOT_TO_BREAK.sub("&nbsp;", marked.replace("+-", "&plusmn;"))


def name_html(name: str) -> str:
    """Return the name of a row as HTML: a narrow column may break it behind each underscore."""
    return as_html(name).replace("_", "_<wbr>")


def table(
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    kinds: Sequence[str] | None = None,
    hints: Sequence[str] = (),
) -> str:
    """Return a table.

    Args:
        heading: what stands above its columns.
        rows: its cells.
        kinds: of each row a class of the style sheet.
        hints: of each column how to read it, which is shown where a mouse rests on its heading.
    """
    told = hints or [""] * len(heading)
    words = [i > 0 and _is_of_words([row[i] for row in rows]) for i in range(len(heading))]
    heads = "".join(map(_head, heading, told, words))
    lines = [f"<tr>{heads}</tr>"]
    for cells, kind in zip(rows, kinds or [""] * len(rows), strict=True):
        name = "".join(f"<td>{name_html(cell)}</td>" for cell in cells[:1])
        shown = "".join(map(_cell, cells[1:], words[1:]))
        lines.append(f'<tr class="{kind}">{name}{shown}</tr>')
    return named_table("\n".join(lines), [cells[0] for cells in rows if cells])


def named_table(lines: str, names: Sequence[str]) -> str:
    """Return a table of lines of HTML, whose first column is as wide as its names need.

    Args:
        lines: its rows.
        names: what its first column holds, in plain words.
    """
    longest = max(map(len, names), default=0)
    return f'<div class="scroll"><table style="--name: {longest}ch">{lines}</table></div>'


def _is_of_words(cells: Sequence[str]) -> bool:
    """Whether a column holds words, not numbers: each cell that holds anything begins with some."""
    said = [cell for cell in cells if cell not in ("", "-")]
    return bool(said) and all(cell[0].isalpha() for cell in said)


def _head(words: str, hint: str, is_of_words: bool) -> str:
    kind = ' class="left"' if is_of_words else ""
    if not hint:
        return f"<th{kind}>{as_html(words)}</th>"
    said = escape(hint.replace("`", ""))
    return f'<th{kind}><abbr title="{said}">{as_html(words)}</abbr></th>'


def _cell(words: str, is_of_words: bool) -> str:
    """Return a cell, an interval at its end in small letters."""
    kind = ' class="left"' if is_of_words else ""
    said = re.sub(r"(\[[^\[\]]+\])$", r'<span class="soft">\1</span>', as_html(words))
    return f"<td{kind}>{said}</td>"


def figure(caption: str, file: Path, *, explained: str = "") -> str:
    """Return a figure that was saved, with its caption, what it shows, and links to its files.

    Args:
        caption: its name.
        file: its PNG file; see `save_figures`.
        explained: what it shows.
    """
    label = escape(caption)
    shown = [(TWO_COLUMNS, "wide"), (ONE_COLUMN, "narrow")]
    drawn = [inline_svg(sized(file, w)[1], label=label, shown=kind) for w, kind in shown]
    links = [f'<a href="{escape(file.name)}">PNG</a>']
    for width, _ in shown:
        pdf, svg = (f"{each.parent.name}/{each.name}" for each in sized(file, width))
        words = width.name.replace("-", " ")
        links.append(f'{words}: <a href="{escape(pdf)}">PDF</a> <a href="{escape(svg)}">SVG</a>')
    text = f"<b>{label}.</b> {as_html(explained)} <small>{'; '.join(links)}</small>"
    return f"<figure>{''.join(drawn)}<figcaption>{text}</figcaption></figure>"


def hardware(environment: dict[str, Json]) -> str:
    """Return in words what ran a report: `environment.json` of its run folder."""
    versions = environment.get("packages", {})
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    commit = environment.get("commit") or "unknown (not run from a checkout)"
    return (
        f"Commit {commit}; {environment['cores']} cores, {environment['system']}; Python "
        f"{environment['python']}, {packages}."
    )


def address(of: Path, page: Path) -> str:
    """Return where a link leads to a file or folder, from a page that lies in the folder `page`."""
    return quote(os.path.relpath(of, page))


def details(title: str, facts: dict[str, Json]) -> str:
    """Return facts that a reader may unfold."""
    rows = "".join(
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>"
        for key, value in facts.items()
    )
    return folded(title, f'<div class="scroll"><table>{rows}</table></div>')


def folded(title: str, part: str) -> str:
    """Return a part of a page that a reader may unfold."""
    return f"<details><summary>{escape(title)}</summary>{part}</details>"
