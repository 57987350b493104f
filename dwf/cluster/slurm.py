"""Ask Slurm: which jobs live, how jobs ended, what the nodes of a partition are."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dwf.cluster.config import SiteConfig
from dwf.errors import ConfigError
from dwf.extras import require
from dwf.jobs import JobState, Key
from dwf.metrics import logger
from dwf.plain import visible

SECONDS_FOR_AN_ANSWER = 60
NO_RECORD = "remove it if no job of this folder lives"
"""Cure of a record of submitted jobs that is damaged."""
_MOST_SAID = 200  # letters of what a command says is wrong
_GPUS = re.compile(r"gpu(?::[^:,()]+)?:(\d+)")
_HABITS = ("SQUEUE_", "SACCT_", "SINFO_")
_OF_A_JOB = ("SLURM_", "SLURMD_", "PMI_", "PMIX_", "PMI2_")
_OF_THE_CLIENT = (
    *("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_JWKS"),
    *("SLURM_TIME_FORMAT", "SLURM_EXIT_ERROR", "SLURM_MPI_TYPE", "SLURM_DEBUG_FLAGS"),
)
LOST = ("NODE_FAIL", "BOOT_FAIL", "FAILED", "TIMEOUT", "PREEMPTED")
"""Ends that nobody asked for and that another run may not come to."""


@dataclass(frozen=True)
class Element:
    """An element of a job array, as `squeue` shows it."""

    state: str
    node: str
    why: str
    """Slurm's reason while it waits."""

    @property
    def is_queued(self) -> bool:
        """Whether it is still to begin, for the first time or again."""
        return self.state in ("PENDING", "REQUEUED", "CONFIGURING")


def has_slurm() -> bool:
    """Whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def require_slurm() -> None:
    """Raise `ConfigError` where jobs cannot be submitted."""
    if not has_slurm():
        raise ConfigError(
            "no `sbatch` on this machine: add --local to work here, or run on a login node of a "
            "Slurm cluster"
        )


@contextlib.contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Within the block the environment has nothing of the job, or step, that this process is in.

    `sbatch` would take it for the new job's: its memory, its tasks, its cores. The client's own
    variables (where Slurm is, who asks) stay, and so do a site's defaults, `SBATCH_*`.
    """
    inherited = {key: os.environ.pop(key) for key in list(os.environ) if _is_of_a_job(key)}
    try:
        yield
    finally:
        os.environ.update(inherited)


def _is_of_a_job(variable: str) -> bool:
    return variable.startswith(_OF_A_JOB) and variable not in _OF_THE_CLIENT


def refuse_patterns(folder: Path) -> None:
    """Raise where Slurm would read a part of a folder's path as a pattern of its log's name.

    Raises:
        ConfigError: there is a `%` in it.
    """
    if "%" in str(folder):
        raise ConfigError(
            f"{folder}: Slurm reads % in the names of its logs as a pattern: give a --name and a "
            "--root without it"
        )


def refusal(said: str, cure: str = "") -> ConfigError:
    """Return the error of a job that `sbatch` refused: its words, and what to do.

    Args:
        said: what it printed.
        cure: what mends it; default: look at site and flags.
    """
    lines = [re.sub(r"^(sbatch: )?(error: )?", "", " ".join(x.split())) for x in said.splitlines()]
    return ConfigError(
        f"sbatch refused the job ({'; '.join(filter(None, lines))}): "
        f"{cure or 'mend that in the file of the site, or by a flag'}; give the command again then"
    )


def refuse_no_number(job: object, file: Path) -> None:
    """Raise `ConfigError` where a record names as a job what is no number of one."""
    if not (isinstance(job, str) and job.isascii() and job.isdecimal()):
        raise ConfigError(
            f"{file} names {job!r} as a job of Slurm, expected a number: it was altered, or "
            f"another program wrote it; {NO_RECORD}"
        )


def living() -> dict[Key, Element] | None:
    """Return the user's jobs that Slurm has not ended; None where it gives no answer."""
    answer = _ask("squeue", "-h", "-a", "-r", "-u", str(os.getuid()), "-o", "%F|%K|%T|%N|%r")
    if answer is None:
        return None
    found = {}
    for line in answer.splitlines():
        job, index, state, node, why = line.strip().split("|")
        found[job, int(index) if index.isdigit() else 0] = Element(state, node, why=why)
    return found


def states() -> dict[Key, JobState] | None:
    """Return whether the user's jobs run or wait, see `living`."""
    found = living()
    if found is None:
        return None
    return {key: "queued" if one.is_queued else "running" for key, one in found.items()}


def ends(keys: Iterable[Key]) -> dict[Key, tuple[str, str]]:
    """Return how elements ended: their last (state, node), of those that accounting knows."""
    require("submitit", who="Slurm (--nodes)")
    from submitit.slurm.slurm import read_job_id

    jobs = ",".join(sorted({job for job, _ in keys}))
    answer = _ask("sacct", "-j", jobs, "-X", "-n", "-P", "-o", "JobID,State,NodeList")
    found = {}
    for line in (answer or "").splitlines():
        name, state, node = line.split("|")
        for job, *span in read_job_id(name):  # elements that never began stand in one line
            first, *last = map(int, span or ["0"])
            for index in range(first, (last or [first])[0] + 1):
                found[job, index] = (state.split()[0], node)
    return found


def own_state() -> str:
    """Return the state of the job that this process belongs to; `RUNNING` where unknown."""
    answer = _ask("squeue", "-h", "-a", "-j", os.environ.get("SLURM_JOB_ID", "0"), "-o", "%T")
    return (answer or "").strip() or "RUNNING"


def most_elements() -> int:
    """Return how many elements an array may have."""
    answer = _ask("scontrol", "show", "config") if shutil.which("scontrol") else None
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", answer or "")
    return max(1, int(match[1]) - 1) if match else 1000


def complete(site: SiteConfig) -> SiteConfig:
    """Fill in cores and GPUs of a node that the site does not say, as `sinfo` says them.

    A partition that is named is looked for in any case, so that a dry run finds a wrong one.

    Raises:
        ConfigError: `sinfo` does not know the partition.
    """
    knows_nodes = site.gpus_per_node is not None and site.cpus_per_node is not None
    if knows_nodes and site.partition is None:
        return site
    answer = _ask("sinfo", "-h", "-a", "-e", "-o", "%P|%c|%G") if shutil.which("sinfo") else None
    known = [line.split("|") for line in (answer or "").splitlines()]
    rows = [row for row in known if _is_partition(row[0], site.partition)]
    if known and not rows:
        names = ", ".join(sorted({row[0].removesuffix("*") for row in known}))
        raise ConfigError(f"partition = {site.partition}: `sinfo` knows {names}: name one of them")
    cpus = min((int(row[1]) for row in rows), default=1)
    gpus = min((_count_gpus(row[2]) for row in rows), default=0)
    return replace(
        site,
        gpus_per_node=gpus if site.gpus_per_node is None else site.gpus_per_node,
        cpus_per_node=cpus if site.cpus_per_node is None else site.cpus_per_node,
    )


def _is_partition(name: str, wanted: str | None) -> bool:
    return name.endswith("*") if wanted is None else name.removesuffix("*") in wanted.split(",")


def _count_gpus(resources: str) -> int:
    return sum(int(number) for number in _GPUS.findall(resources))


def _ask(*words: str) -> str | None:
    """Return what a command of Slurm says; None, and a log line, where it fails."""
    try:
        ran = _run(words)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("%s", _unanswered(words[0], str(error)))
        return None
    if ran.returncode:
        logger.warning("%s", _unanswered(words[0], ran.stderr))
        return None
    return ran.stdout


def _unanswered(command: str, said: str) -> str:
    """Return in one sentence that a command gave no answer; of its own words the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["it says no more"]
    reason = lines[-1].removeprefix(f"{command}: ").removeprefix("error: ")
    return f"`{command}` gives no answer, dwf goes on without it ({visible(reason)[:_MOST_SAID]})"


def _run(words: Sequence[str]) -> subprocess.CompletedProcess:
    # A user's own filters and formats (SQUEUE_STATES, SACCT_FORMAT) would hide jobs from us.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_HABITS)}
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=SECONDS_FOR_AN_ANSWER,
        env=environment,
    )
