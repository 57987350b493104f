"""Record of a run for a page: when, for how long, by which commands, and where the rest lies.

NAME/timing.json    when a report was finished and what it took; no part of what is compared
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from dwf.evaluation.report.html import TOP, address, details, hardware, paragraphs
from dwf.files import read_json
from dwf.plain import Json
from dwf.run_folder import write_json

FILE = "timing.json"


def save_timing(folder: Path, seconds: float) -> None:
    """Write to a run's folder that it is finished now, and what it took."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / FILE, {"finished": now, "seconds": round(seconds, 1)})


@dataclass(frozen=True)
class Record:
    """Words of a page: what it says of the run that made it."""

    environment: dict[str, Json]
    """Content of `environment.json` of the run folder."""
    timing: dict[str, Json]
    """Content of `timing.json`; empty without one."""
    commands: tuple[str, ...] = ()
    """Commands that make everything anew, in order; they are run in the root folder."""
    links: tuple[tuple[str, str], ...] = ()
    """Words, and where they lead to from the page."""

    @classmethod
    def read(
        cls,
        folder: Path,
        *,
        page: Path,
        commands: Sequence[str] = (),
        links: Sequence[tuple[str, Path]] = (),
    ) -> "Record":
        """Return what a run's folder tells.

        Args:
            folder: the folder of its records.
            page: the folder that its page lies in.
            commands: see the field.
            links: words, and the file or folder that they lead to.
        """
        timing = folder / FILE
        return cls(
            read_json(folder / "environment.json"),
            read_json(timing) if timing.exists() else {},
            commands=tuple(commands),
            links=tuple((words, address(to, page)) for words, to in links),
        )

    @property
    def when(self) -> str:
        """The date and the duration, in words; empty where they are not known."""
        if not self.timing:
            return ""
        moment = datetime.fromisoformat(self.timing["finished"])
        return f"{moment:%-d %B %Y, %H:%M} UTC, {in_words(self.timing['seconds'])}"

    def top(self) -> list[str]:
        """Return the line below a page's name: when it was made, and where else to look."""
        parts = [escape(self.when)] if self.when else []
        parts += [f'<a href="{escape(to)}">{escape(words)}</a>' for words, to in self.links]
        return [f"{TOP}{' &middot; '.join(parts)}</p>"] if parts else []

    def bottom(self, more: str = "", *, facts: dict[str, dict[str, Json]]) -> list[str]:
        """Return the section on what was run.

        Args:
            more: a sentence beside those on the hardware.
            facts: title -> facts that a reader may unfold.
        """
        said = [f"Made {self.when}."] if self.when else []
        parts = ["<h2>What was run</h2>"]
        parts += paragraphs([" ".join([*said, hardware(self.environment), more]).strip()])
        if self.commands:
            lines = escape("\n".join(self.commands))
            parts += paragraphs(["To make it anew, in the folder that holds zoos and reports:"])
            parts += [f"<pre>{lines}</pre>"]
        return parts + [details(title, told) for title, told in facts.items()]


def in_words(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 100:
        return f"{seconds:.3g} seconds"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} minutes"
