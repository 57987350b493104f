"""Several pipelines one after the other: what became of each, and all their rows in one table.

reports/summary.md    the pipelines, then a row for each row of their reports
reports/summary.csv   the same rows
"""

import contextlib
import csv
import io
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dwf.errors import DwfError, Preempted, StillRunning, WorkFailed
from dwf.pipeline import STAGES, Command
from dwf.plain import Json, for_markdown
from dwf.run_folder import replacing_alone

FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """Fate of one pipeline."""

    name: str
    state: str
    """In a word."""
    why: str = ""
    """Why it is not finished."""
    rows: Sequence[dict[str, Json]] = ()
    """Rows of what its stages say of themselves."""

    @property
    def words(self) -> str:
        """The state, and why."""
        return f"{self.state}: {self.why}" if self.why else self.state


class Summary:
    """Fate of several pipelines.

    Args:
        root: folder that holds reports/.
        done: state of a pipeline that did not fail.
    """

    def __init__(self, root: Path, done: str = "finished"):
        self.root, self.done = root, done
        self.outcomes: list[Outcome] = []

    @contextlib.contextmanager
    def following(self, name: str) -> Iterator[list[Command]]:
        """Take note of what becomes of a pipeline; one that fails in the body stops no other.

        Args:
            name: of the pipeline.

        Yields:
            A list, to which the body adds the pipeline's commands, for the rows of what they made.
        """
        given: list[Command] = []
        state, why = self.done, ""
        try:
            yield given
        except Preempted:
            raise
        except StillRunning as news:
            state, why = "goes on elsewhere", str(news)
        except DwfError as error:
            state, why = FAILED, str(error)
        except Exception as error:  # our bug keeps its traceback, and the others go on
            traceback.print_exc()
            state, why = FAILED, f"{type(error).__name__}: {error}"
        rows = [
            {"pipeline": name} | row
            for command in given
            for row in STAGES[command.stage].rows(self.root, command.name)
        ]
        self.outcomes.append(Outcome(name, state, " ".join(why.split()), rows=rows))
        print(f"\npipeline {name}: {self.outcomes[-1].words}", flush=True)

    def write(self) -> Path:
        """Write both files; return the first."""
        from dwf.evaluation.report import markdown_table  # with torch

        rows = [row for one in self.outcomes for row in one.rows]
        heading = tuple(dict.fromkeys(name for row in rows for name in row))
        folder = self.root / "reports"
        folder.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, heading, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing_alone(folder / "summary.csv") as partial:
            partial.write_text(text.getvalue(), encoding="utf-8")
        states = [(one.name, one.words.replace("|", "/")) for one in self.outcomes]
        parts = ["# Pipelines", markdown_table(("pipeline", "state"), states)]
        if rows:
            cells = [tuple(_cell(name, row.get(name)) for name in heading) for row in rows]
            parts += ["## Reports", markdown_table(heading, cells), _WORDS]
        with replacing_alone(folder / "summary.md") as partial:
            partial.write_text(for_markdown("\n\n".join(parts) + "\n"), encoding="utf-8")
        return folder / "summary.md"

    def refuse_failed(self) -> None:
        """Raise `WorkFailed` where a pipeline failed; names each."""
        failed = [f"{one.name}: {one.why}" for one in self.outcomes if one.state == FAILED]
        if failed:
            raise WorkFailed(
                f"{len(failed)} of {len(self.outcomes)} pipelines failed, the others went on; mend "
                "them and give the same command again:\n  " + "\n  ".join(failed)
            )


_WORDS = (
    "Every network of every set counts. Columns are explained in each report; +- is the deviation "
    "over networks, and in a row of family `seeds` that of the seeds' means."
)


def _cell(name: str, value: Json) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if name.endswith("(%)") else f"{value:.3f}"
    return str(value).replace("|", "/")
