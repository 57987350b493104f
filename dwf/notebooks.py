"""Views for notebooks: tables as HTML, and the bar of long work.

Nothing of IPython is imported unless a notebook has imported it.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_SECONDS_BETWEEN = 0.2


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def facts_html(title: str, facts: Mapping[str, str]) -> str:
    """Return facts as a small table of HTML: a name and a value in each row.

    Args:
        title: above it.
        facts: name -> value, as text.
    """
    cells = [
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in facts.items()
    ]
    return f"<div><b>{escape(title)}</b><table>{''.join(cells)}</table></div>"


def table_html(
    title: str, columns: Sequence[str], *, rows: Sequence[Sequence[str]], words: Sequence[str]
) -> str:
    """Return a table of HTML.

    Args:
        title: above it.
        columns: its heading.
        rows: its cells, as text; all but the first of each are numbers.
        words: sentences below it.
    """
    left = " style='text-align:left'"
    heading = "".join(
        f"<th{'' if i else left}>{escape(name)}</th>" for i, name in enumerate(columns)
    )
    lines = [
        "".join(f"<td{'' if i else left}>{escape(cell)}</td>" for i, cell in enumerate(row))
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    below = "".join(f"<p>{escape(sentence)}</p>" for sentence in words)
    head = f"<thead style='white-space:normal'><tr>{heading}</tr></thead>"
    table = f"<table style='white-space:nowrap'>{head}<tbody>{body}</tbody></table>"
    table = f"<div style='overflow-x:auto'>{table}</div>"
    return f"<div><b>{escape(title)}</b>{table}{below}</div>"


class NotebookBar:
    """Bar in the output of a notebook's cell; it is used as the bar on a terminal is.

    Args:
        what: what is done, for a person.
        total: units of work in all.
        done: units done before.
    """

    def __init__(self, what: str, total: float, *, done: float):
        self._what, self._total, self._done = what, total, done
        self._words = ""
        self._shown_at = 0.0
        self._display: Any = None

    def start(self) -> None:
        """Show it below the cell."""
        from IPython.display import display

        self._display = display(self._view(), raw=True, display_id=True)
        self._shown_at = time.monotonic()

    def update(
        self, task: int, *, completed: float, total: float | None = None, **told: str
    ) -> None:
        """Show how far the work is, at most some times a second.

        Args:
            task: 0: there is one.
            completed: units done.
            total: units of work in all, where they are others than before.
            told: what to write beside the bar.
        """
        self._total = self._total if total is None else total
        self._done, self._words = completed, "  ".join(filter(None, told.values()))
        if time.monotonic() - self._shown_at >= _SECONDS_BETWEEN:
            self._show()

    def stop(self) -> None:
        """Show how far the work came."""
        self._show()

    def _show(self) -> None:
        if self._display is not None:
            self._display.update(self._view(), raw=True)
            self._shown_at = time.monotonic()

    def _view(self) -> dict[str, str]:
        share = self._done / self._total if self._total else 1.0
        words = f"{share:.0%}  {self._words}".strip()
        bar = f"<progress value='{self._done:g}' max='{self._total:g}'></progress>"
        return {
            "text/html": f"<div>{escape(self._what)} {bar} {escape(words)}</div>",
            "text/plain": f"{self._what} {words}",
        }
