"""Run units of work as a Slurm job array, through submitit.

An element of the array does a node-full of units (one a GPU, or core) at most, and no more than
`nodes` elements run at once. What is whole is read from the disk, what lives from `squeue`:
submitit takes a node's failure for the job's end, though Slurm runs the job again. So a launch can
be given twice, stopped and given again: jobs that live are watched, units that nobody does are
submitted.
"""

import itertools
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import index as whole
from pathlib import Path

from dwf.cluster import slurm
from dwf.cluster.config import SiteConfig, minutes, refuse_control, setup_lines
from dwf.cluster.element import Element, forget_failures, jobs_folder
from dwf.cluster.work import missing
from dwf.errors import ConfigError
from dwf.extras import require
from dwf.files import read_json, told_by
from dwf.jobs import RECORD, Key
from dwf.metrics import logger
from dwf.plain import Json
from dwf.run_folder import write_json
from dwf.stages import Work

LAUNCH = "launch.json"
_LIMIT = re.compile(r"submit|job array", re.IGNORECASE)  # of a limit, not of "submission"


@dataclass(frozen=True)
class Array:
    """A job array: the units of each element, and what an element asks of a node."""

    elements: list[list[int]]
    workers: int
    gpus: int
    cpus: int
    parameters: dict[str, Json]
    """Parameters by submitit's names."""


def cut_units(
    work: Work, units: Sequence[int], *, nodes: int, site: SiteConfig, workers: int | None = None
) -> Array:
    """Cut units into elements, each a node-full at most; more where the array would be too long.

    Args:
        work: whose units they are.
        units: those to be done.
        nodes: how many elements run at once.
        site: complete, see `slurm.complete`.
        workers: units that a node does at once; default: one for each GPU, or core.

    Raises:
        ConfigError: the folder's path has control characters, or what Slurm reads as a pattern.
    """
    refuse_control("the folder", work.folder)
    slurm.refuse_patterns(work.folder)
    gpus, cpus = site.gpus_per_node or 0, site.cpus_per_node or 1
    full = workers or gpus or cpus
    width = max(1, min(full, -(-len(units) // nodes)))
    most = min(slurm.most_elements(), site.array_elements or len(units) or 1)
    length = max(width, -(-len(units) // most))
    cut = [list(units[i : i + length]) for i in range(0, len(units), length)]
    asked = {
        "gpus": -(-gpus * width // full),
        "cpus": max(1, -(-cpus * width // full)),
        "memory_gb": site.memory_gb and site.memory_gb * width / full,
    }
    parameters = _parameters(work, site, nodes, **asked)
    return Array(cut, width, gpus=asked["gpus"], cpus=asked["cpus"], parameters=parameters)


def _parameters(
    work: Work, site: SiteConfig, nodes: int, gpus: int, cpus: int, memory_gb: float | None
) -> dict[str, Json]:
    named = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "gpus_per_node": gpus or None,
        "mem": f"{round(memory_gb * 1024)}MB" if memory_gb else None,
    }
    return {key: value for key, value in named.items() if value is not None} | {
        "job_name": work.folder.name,
        "time": minutes(site.time),
        "cpus_per_task": cpus,
        "array_parallelism": nodes,
        "signal_delay_s": site.signal_seconds,
        "setup": setup_lines(site),
        # Since Slurm 22.05 srun does not take the job's number of cores over.
        "srun_args": [f"--cpus-per-task={cpus}"],
        "additional_parameters": {"requeue": True} | site.sbatch,
    }


def script(work: Work, array: Array) -> str:
    """Return the sbatch script that `submit` hands in."""
    require("submitit", who="Slurm (--nodes)")
    from submitit.slurm import slurm as submitit_slurm

    folder = jobs_folder(work.folder)
    command = (
        f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    )
    count = {"map_count": len(array.elements)} if len(array.elements) > 1 else {}
    return submitit_slurm._make_sbatch_string(
        command=command, folder=folder, **array.parameters, **count
    )


def submit(work: Work, array: Array, *, site: SiteConfig, alive: Collection[str] = ()) -> str:
    """Hand an array in and write down what it does; return the job's number.

    Args:
        work: whose units they are.
        array: see `cut_units`.
        site: complete.
        alive: numbers of the folder's jobs that live.

    Raises:
        ConfigError: Slurm refuses the job; says why.
    """
    require("submitit", who="Slurm (--nodes)")
    import submitit
    from submitit.core.utils import FailedJobError

    folder = jobs_folder(work.folder)
    executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=site.requeues)
    executor.update_parameters(**array.parameters)
    forget_failures(work.folder, itertools.chain(*array.elements))
    forget_pickles(folder, alive)
    try:
        with slurm.outside_of_jobs(), executor.batch():
            jobs = [
                executor.submit(Element(work, units, workers=array.workers))
                for units in array.elements
            ]
    except FailedJobError as error:
        raise slurm.refusal(str(error), _cure(str(error), array)) from None
    job = jobs[0].job_id.partition("_")[0]
    write_json(folder / RECORD, [*_records(work.folder), {"job": job, "elements": array.elements}])
    logger.info("submitted job %s: %d elements", job, len(array.elements))
    return job


def _cure(told: str, array: Array) -> str:
    """Return how to ask for less, where a limit on the number of jobs refused an array."""
    if not _LIMIT.search(told) or len(array.elements) < 2:
        return ""
    return (
        f"the array has {len(array.elements)} elements; give the site's file fewer with "
        "array_elements: N"
    )


def forget_pickles(folder: Path, alive: Collection[str]) -> None:
    """Remove submitit's pickles but for those of jobs that live.

    A job runs what the file of its number holds. Numbers to come can be guessed, so a folder of
    another user's could hold files for them.
    """
    for path in folder.glob("*.pkl"):
        if path.name.partition("_")[0] not in alive:
            path.unlink(missing_ok=True)


def submit_missing(
    work: Work, wanted: Sequence[int], *, nodes: int, site: SiteConfig, workers: int | None = None
) -> None:
    """Submit the wanted units that are neither whole nor in a living job. Hold the run folder."""
    alive = in_work(work.folder)
    if alive:
        logger.info("attached to what runs already: job %s", ", ".join(job_numbers(alive)))
    free = set(wanted).difference(*alive.values())
    units = [index for index in missing(work) if index in free]
    if units:
        array = cut_units(work, units, nodes=nodes, site=site, workers=workers)
        submit(work, array, site=site, alive=job_numbers(alive))


def in_work(folder: Path) -> dict[Key, list[int]]:
    """Return the elements of a folder's jobs that live, and their units.

    Raises:
        ConfigError: Slurm gives no answer.
    """
    recorded = elements(folder)
    if not recorded:
        return {}
    alive = slurm.living()
    if alive is None:
        raise ConfigError(
            f"{folder} was submitted to Slurm, and `squeue` does not answer here: go on where it "
            f"does, or remove {jobs_folder(folder) / RECORD} if those jobs are gone"
        )
    return {key: units for key, units in recorded.items() if key in alive}


def elements(folder: Path) -> dict[Key, list[int]]:
    """Return the units of every element that was ever submitted for a folder."""
    return {
        (record["job"], index): units
        for record in _records(folder)
        for index, units in enumerate(record["elements"])
    }


def job_numbers(keys: Iterable[Key]) -> list[str]:
    """Return the jobs that elements belong to, each once."""
    return sorted({job for job, _ in keys}, key=int)


def _records(folder: Path) -> list[dict[str, Json]]:
    """Return what was submitted for a folder; its numbers become words of commands."""
    file = jobs_folder(folder) / RECORD
    records = read_json(file, list, cure=slurm.NO_RECORD) if file.exists() else []
    with told_by(file, cure=slurm.NO_RECORD):
        found: list[dict[str, Json]] = [
            {"job": one["job"], "elements": [list(map(whole, units)) for units in one["elements"]]}
            for one in records
        ]
    for record in found:
        slurm.refuse_no_number(record["job"], file)
    return found
