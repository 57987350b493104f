"""Helpers of all who run a stage's units of work."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dwf.errors import DwfError, WorkFailed
from dwf.flags import words_naming
from dwf.metrics import Progress, logger
from dwf.stages import Work
from dwf.system_errors import sentence_of

# A shared file system fails now and then; work that fails for another reason would fail again.
ATTEMPTS = 3
SECONDS_BEFORE_AGAIN = 2.0
_LONGEST_LIST = 20
_RESUMED_BY = {"zoos": "zoo", "finetunes": "finetune", "audits": "audit", "runs": "predictor"}
"""Folder of a kind of product -> command whose units of work lie there."""


Refuse = Callable[[Path], None]
"""Raises `RunConflict` where others have the work of a folder."""


def refuse_none(folder: Path) -> None:
    """Take any folder's work."""


def missing(work: Work) -> list[int]:
    """Return the units that are not whole on disk, in order."""
    return sorted(set(range(work.count)) - work.finished(work.folder))


def going_on(folder: Path) -> str:
    """Return the command that goes on with the work in a folder, as far as its place tells."""
    for above in folder.absolute().parents:
        if above.name.endswith("measured"):
            break
        if above.name in _RESUMED_BY:
            return f"dwf {_RESUMED_BY[above.name]} --resume {words_naming(folder, above.name)}"
    return "the same command"


def progress_of(work: Work, bar: bool = True) -> Progress:
    """Begin to show how far work is; see `Progress`."""
    done, _ = work.so_far()
    return Progress(work.what, work.size, unit=work.unit_name, done=done, bar=bar)


def show(work: Work, progress: Progress, **facts: str) -> None:
    """Show how far work is now, and its own fact with others."""
    done, fact = work.so_far()
    progress.update(done, **facts, **({"": fact} if fact else {}))


def attempt(unit: Callable[[Path, int], None], folder: Path, *, index: int) -> None:
    """Do a unit; where a file could not be read or written, try again."""
    for again in range(1, ATTEMPTS + 1):
        try:
            return unit(folder, index)
        except OSError as error:
            if again == ATTEMPTS:
                raise
            logger.warning("unit %d: %s: trying again (%d)", index, error, again)
            time.sleep(SECONDS_BEFORE_AGAIN * again)


def reason(error: BaseException) -> str:
    """Say in a line why a unit failed."""
    if isinstance(error, OSError):
        return sentence_of(error)
    return str(error) if isinstance(error, DwfError) else f"{type(error).__name__}: {error}"


def raise_failures(work: Work, failed: Mapping[int, str]) -> None:
    """Raise `WorkFailed` with the reason of each unit that failed, if one did."""
    if not failed:
        return
    lines = [f"  unit {index}: {why}" for index, why in sorted(failed.items())]
    more = len(lines) - _LONGEST_LIST
    lines = lines[:_LONGEST_LIST] + [f"  ... and {more} more"] * (more > 0)
    raise WorkFailed(
        f"{len(failed)} of {work.count} units of {work.folder} failed; the others are whole. Mend "
        "the cause and give the same command again:\n" + "\n".join(lines)
    )
