"""Give a training of several ranks to Slurm as one job, and watch it to its end.

The job is `sbatch slurm/generator.sh --resume --name NAME`, as a person would give it: the one way
to ranks on a cluster. Its settings are those of the run folder, where the launch writes them before
it submits. A launch that is given twice, or stopped and given again, watches the job that lives.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dwf import preemption
from dwf.cluster import slurm
from dwf.cluster.config import (
    RankedLaunch,
    SiteConfig,
    read_site,
    refuse_control,
    refuse_slurm_flags,
    setup_lines,
)
from dwf.cluster.slurm import Element
from dwf.errors import ConfigError, RunConflict, StillRunning, WorkFailed
from dwf.files import parse_json, read_json, told_by
from dwf.flags import name_and_root, words_naming
from dwf.jobs import RECORD
from dwf.metrics import SECONDS_BETWEEN_LINES, logger
from dwf.plain import Settings
from dwf.run_folder import write_json
from dwf.same_settings import refuse_other_settings
from dwf.settings import Parsed
from dwf.shipped import ROOT
from dwf.stages import Product, stage
from dwf.trackers import TrackerName

SCRIPT = "slurm/generator.sh"
SECONDS_BETWEEN_LOOKS = 5.0
_LOOKS_TO_BELIEVE = 3
_SHOWN = ("train_loss", "val_loss", "sample_accuracy", "tokens/s", "samples/s")
_MOST_LINES = 12
_ATTEMPT, _ERROR = (
    re.compile(r"job \d+ on .* begun \d+ times"),
    re.compile(r"[Ee]rror: |rank \d+ of \d"),
)


@dataclass(frozen=True)
class RankedJob:
    """One job whose ranks train together."""

    folder: Path
    """The run folder, absolute: `root/runs/NAME`."""
    nodes: int
    site: SiteConfig
    """Complete, see `slurm.complete`."""
    wait: bool = True
    track: tuple[TrackerName, ...] = ()
    """Trackers of the run."""

    def __post_init__(self):
        refuse_control("the folder", self.folder)

    @property
    def arguments(self) -> list[str]:
        """Words behind the script's name: all else stands in the run folder."""
        name, root = name_and_root(self.folder, "runs")
        words = ["--resume", "--name", name, "--root", str(root)]
        return [*words, "--track", *self.track] if self.track else words

    @property
    def ranks_per_node(self) -> int:
        """One for each GPU, or one a node."""
        return int(self.site.sbatch.get("ntasks-per-node", self.site.gpus_per_node or 1))

    @property
    def ranks(self) -> int:
        """How many ranks train together."""
        return self.nodes * self.ranks_per_node

    def command(self) -> list[str]:
        """Return the words that submit it.

        Raises:
            ConfigError: Slurm would read the folder's path as a pattern.
        """
        slurm.refuse_patterns(self.folder)
        site, ranks = self.site, self.ranks_per_node
        options = {
            "nodes": self.nodes,
            "ntasks-per-node": ranks,
            "cpus-per-task": max(1, (site.cpus_per_node or 1) // ranks),
            "gpus-per-node": site.gpus_per_node or None,
            "mem": f"{round(site.memory_gb * 1024)}M" if site.memory_gb else None,
            "partition": site.partition,
            "account": site.account,
            "qos": site.qos,
            "constraint": site.constraint,
            "time": site.time,
            "signal": f"B:USR2@{site.signal_seconds}",
            "job-name": self.folder.name,
            "output": _jobs_folder(self.folder) / "%j.out",
            "chdir": ROOT,
        } | site.sbatch
        given = [f"--{key}={value}" for key, value in options.items() if value is not None]
        return ["sbatch", "--parsable", *given, SCRIPT, *self.arguments]

    def describe(self) -> str:
        """Return how it would be submitted, in words."""
        lines = [
            f"{self.ranks} ranks: {self.nodes} nodes with {self.ranks_per_node} each, which read "
            f"their settings from {self.folder / 'config.yaml'}, by",
            f"  {shlex.join(map(str, self.command()))}",
            *(f"  {line}" for line in setup_lines(self.site)),
        ]
        return "\n".join(lines)


def job_of(parsed: Parsed) -> RankedJob | None:
    """Return the job that a command line asks for; None where the work is to be done here.

    Args:
        parsed: a command line of `RankedLaunch`, whose folders are `runs/NAME`.

    Raises:
        ConfigError: a flag would have no effect, or the site's file is wrong.
    """
    launch: RankedLaunch = parsed.launch
    if not launch.nodes:
        refuse_slurm_flags(launch)
        return None
    folder = launch.root.absolute() / "runs" / parsed.name
    site = slurm.complete(read_site(launch))
    return RankedJob(folder, launch.nodes, site=site, wait=launch.wait, track=launch.track)


def refuse_while_submitted(folder: Path) -> None:
    """Raise `RunConflict` where a job of Slurm has this run; not within a job."""
    if "SLURM_JOB_ID" in os.environ:
        return
    job = _living_job(folder)
    if job:
        raise RunConflict(
            f"{folder} is being worked on by Slurm job {job[0]}: watch it with --nodes N "
            f"{words_naming(folder, 'runs')}, or end it with scancel {job[0]}"
        )


def run(job: RankedJob, config: Settings, *, is_done: Callable[[Path], bool]) -> None:
    """Submit the job, unless one of this run lives, and watch it to its end.

    Args:
        job: see `job_of`.
        config: the run's settings, which are recorded before anything is submitted.
        is_done: whether the run of a folder is finished.

    Raises:
        ConfigError: there is no Slurm, or it refuses the job; says why.
        RunConflict: the folder holds a run of other settings, or a process works in it.
        WorkFailed: the job ended and the run is not finished; names state, node and log.
        StillRunning: waiting was not asked for, or a signal came; the job goes on.
    """
    slurm.require_slurm()
    number = _attach_or_submit(job, config, is_done)
    if number is None:
        return
    if not job.wait:
        raise StillRunning(f"job {number} goes on; {_look_again(job, number)}")
    _watch(job, number)
    if not is_done(job.folder):
        raise WorkFailed(_end(job, number))
    logger.info("job %s is done: log %s", number, _log(job.folder, number))


def _attach_or_submit(
    job: RankedJob, config: Settings, is_done: Callable[[Path], bool]
) -> str | None:
    """Return the number of the job that works on the run; None where it is finished."""
    alive = _living_job(job.folder)
    if not alive:
        run = Product("run", is_whole=is_done)
        with stage(run, job.folder, config=config, has_workers=True) as record:  # ranks of the job
            if record is None:
                return None
            alive = _living_job(job.folder)
            return alive[0] if alive else _submit(job)
    refuse_other_settings(job.folder, config)  # and leave the job's own records alone
    logger.info("attached to what runs already: job %s", alive[0])
    return alive[0]


def _submit(job: RankedJob) -> str:
    folder = _jobs_folder(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    words = list(map(str, job.command()))
    with slurm.outside_of_jobs():
        environment = os.environ | {"PATH": path, "DWF_SETUP": "\n".join(setup_lines(job.site))}
        ran = subprocess.run(
            words,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            cwd=ROOT,
        )
    if ran.returncode:
        with suppress(OSError):  # nothing came of it, so the run's name is free; or logs are there
            folder.rmdir()
        raise slurm.refusal(ran.stderr)
    number = ran.stdout.strip().partition(";")[0]
    write_json(folder / RECORD, [*_recorded(job.folder), number])
    logger.info("submitted job %s: %s", number, shlex.join(words))
    return number


def _jobs_folder(folder: Path) -> Path:
    return folder / "jobs"


def _log(folder: Path, number: str) -> Path:
    return _jobs_folder(folder) / f"{number}.out"


def _recorded(folder: Path) -> list[str]:
    """Return the jobs that a run was submitted as; their numbers become words of commands."""
    file = _jobs_folder(folder) / RECORD
    numbers = read_json(file, list, cure=slurm.NO_RECORD) if file.exists() else []
    for number in numbers:
        slurm.refuse_no_number(number, file)
    return numbers


def _living_job(folder: Path) -> tuple[str, Element] | None:
    """Return the newest of a run's jobs that Slurm has not ended."""
    recorded = _recorded(folder)
    if not recorded:
        return None
    alive = slurm.living()
    if alive is None:
        raise ConfigError(
            f"{folder} was submitted to Slurm, and `squeue` does not answer here: go on where it "
            f"does, or remove {_jobs_folder(folder) / RECORD} if job {recorded[-1]} is gone"
        )
    return next(((n, alive[n, 0]) for n in reversed(recorded) if (n, 0) in alive), None)


def _watch(job: RankedJob, number: str) -> None:
    """Log a line a minute, and when the job's state changes, until it is gone."""
    gone, before, said = 0, "", -SECONDS_BETWEEN_LINES
    while gone < _LOOKS_TO_BELIEVE:  # between two attempts a job is not always seen
        alive = slurm.living()
        if alive is not None:
            element = alive.get((number, 0))
            gone = 0 if element else gone + 1
            state = _state(element) if element else before
            if state != before or time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                before, said = state, time.monotonic()
                logger.info("job %s: %s%s", number, state, progress(job.folder))
        end = time.monotonic() + SECONDS_BETWEEN_LOOKS
        while time.monotonic() < end:
            if preemption.is_asked():
                raise StillRunning(f"\njob {number} goes on; {_look_again(job, number)}")
            time.sleep(0.2)


def _state(element: Element) -> str:
    if element.node:
        return f"{element.state.lower()} on {element.node}"
    return f"{element.state.lower()} ({element.why})"


def progress(folder: Path) -> str:
    """Return what the newest metrics of a run say: ", codec: step 40 of 100, train_loss 0.3"."""
    files = sorted(folder.rglob("metrics.jsonl"), key=lambda file: file.stat().st_mtime)
    lines = files[-1].read_text(encoding="utf-8", errors="replace").splitlines() if files else []
    if not lines or not lines[-1].endswith("}"):
        return ""
    last, facts = parse_json(lines[-1], files[-1]), files[-1].with_name("training.json")
    steps = f" of {read_json(facts, keys=('steps',))['steps']}" if facts.exists() else ""
    part = "density" if files[-1].parent == folder else files[-1].parent.name
    with told_by(files[-1]):
        values = [f"{name} {last[name]:.4g}" for name in _SHOWN if name in last]
        return f", {part}: " + ", ".join([f"step {last['step']}{steps}", *values])


def _look_again(job: RankedJob, number: str) -> str:
    return (
        f"look again with: dwf generator --resume {words_naming(job.folder, 'runs')} "
        f"--nodes {job.nodes}\n  log: {_log(job.folder, number)}\n  end it with: scancel {number}"
    )


def _end(job: RankedJob, number: str) -> str:
    """Say how a job ended that did not finish the run, with what its log says last."""
    state, node = slurm.ends([(number, 0)]).get((number, 0), ("gone from the queue", "unknown"))
    log = _log(job.folder, number)
    text = (
        f"job {number} is {state} (nodes {node}, log {log}), and {job.folder} is not finished. "
        "Mend the cause and give the same command again; the log says:"
    )
    return "\n  ".join([text, *(_said_last(log) or ["nothing"])])


def _said_last(log: Path) -> list[str]:
    """Return the errors of a log's last attempt, the first of which is the cause; or its end."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    begun = [i for i, line in enumerate(lines) if _ATTEMPT.match(line)]
    lines = lines[begun[-1] :] if begun else lines
    errors = [line for line in lines if _ERROR.search(line)]
    return errors[:_MOST_LINES] or lines[-_MOST_LINES:]
