"""Slurm's jobs that a folder was submitted as: their numbers, and what they do now."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import index as whole
from pathlib import Path
from typing import Literal

from dwf.files import read_json, told_by
from dwf.plain import Json

RECORD = "submitted.json"
"""File of a folder `jobs`: what was submitted."""
Key = tuple[str, int]
"""(job, index in its array)."""
JobState = Literal["running", "queued", "submitted", "ended"]
"""A job that is submitted may be over: nobody tells here."""
Living = Callable[[], Mapping[Key, JobState] | None]
"""Asks Slurm for this user's jobs that have not ended; None: it gives no answer."""


def nobody_tells() -> None:
    """Stand for a Slurm that gives no answer."""
    return None


@dataclass(frozen=True)
class Jobs:
    """Jobs of a folder, with those units that they still do or may do."""

    numbers: Mapping[JobState, tuple[str, ...]]
    """Numbers by what they do; those that ended only where no other is left."""
    units: frozenset[int]

    @property
    def state(self) -> JobState:
        """The first of what they do: where one runs, they are running."""
        return next(iter(self.numbers))

    @property
    def words(self) -> str:
        """Say what they do: `Slurm job 17 is queued`."""
        each = [
            f"jobs {', '.join(n)} {_SAID[state][1]}" if n[1:] else f"job {n[0]} {_SAID[state][0]}"
            for state, n in self.numbers.items()
        ]
        return f"Slurm {', '.join(each)}"


_SAID: dict[JobState, tuple[str, str]] = {
    "running": ("is running", "are running"),
    "queued": ("is queued", "are queued"),
    "submitted": ("was submitted and may be over", "were submitted and may be over"),
    "ended": ("has ended", "have ended"),
}
"""State -> words of one job and of several."""


def read_jobs(records: Path, living: Living = nobody_tells) -> Jobs | None:
    """Return the jobs that a folder was submitted as; None where it was not.

    Jobs of another user's folder are not asked for: Slurm may hide them.

    Args:
        records: folder of the run's records.
        living: asks Slurm; not called where there are no jobs.

    Raises:
        CorruptCheckpoint: the record is damaged.
    """
    file = records / "jobs" / RECORD
    if not file.exists():
        return None
    with told_by(file):
        units = {key: units for one in read_json(file, list) for key, units in _elements(one)}
    if not units:
        return None
    now = living() if file.stat().st_uid == os.getuid() else None
    states: Mapping[Key, JobState] = dict.fromkeys(units, "submitted") if now is None else now
    alive = [key for key in units if key in states]
    numbers: dict[str, JobState] = {job: states[job, i] for job, i in alive}
    # An array of which one element runs is running.
    numbers |= {job: "running" for job, i in alive if states[job, i] == "running"}
    numbers = numbers or {job: "ended" for job, _ in units}
    by_state = {
        state: tuple(sorted((job for job in numbers if numbers[job] == state), key=int))
        for state in _SAID
        if state in numbers.values()
    }
    return Jobs(by_state, frozenset(index for key in alive for index in units[key]))


def _elements(record: Json) -> list[tuple[Key, list[int]]]:
    """Return the elements of a recorded job: units of each of an array, or none of a lone job."""
    number = record["job"] if isinstance(record, dict) else record
    if not (isinstance(number, str) and number.isascii() and number.isdecimal()):
        raise ValueError(f"{number!r} is no number of a job")  # they become words of a command
    if not isinstance(record, dict):
        return [((number, 0), [])]
    return [((number, i), list(map(whole, one))) for i, one in enumerate(record["elements"])]
