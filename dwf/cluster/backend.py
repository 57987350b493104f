"""Pick what runs the work: worker processes here, a Slurm job array, or Ray."""

import json
import os
import shlex
from contextlib import suppress
from functools import partial
from pathlib import Path

from dwf import trust
from dwf.cluster import local, slurm, submit
from dwf.cluster.config import (
    ClusterLaunch,
    SiteConfig,
    chosen_backend,
    read_site,
    refuse_slurm_flags,
    with_flags,
)
from dwf.cluster.element import jobs_folder
from dwf.cluster.watch import Slurm
from dwf.cluster.work import going_on, missing
from dwf.compute import Gpus
from dwf.errors import ConfigError, RunConflict
from dwf.files import read_json
from dwf.metrics import logger
from dwf.plain import Json
from dwf.run_folder import write_json
from dwf.settings import build, flatten, to_dict
from dwf.stages import Runner, Work

_IDLE_GPUS = (
    "note: this work computes on cores alone, one a worker; its GPUs would lie idle. Where a CPU "
    "partition is free, take that, with gpus_per_node: 0"
)


def runner(launch: ClusterLaunch, folder: Path) -> Runner:
    """Return what runs the work in `folder`, as the flags say; `--resume` continues it.

    Raises:
        ConfigError: flags contradict each other, the site's file is wrong, or there is no Slurm.
    """
    runs = _slurm(launch, folder)
    if runs:
        slurm.require_slurm()
        return partial(_submitted, runs=runs, launch=launch)
    if chosen_backend(launch) == "ray":
        from dwf.cluster import ray_cluster

        return ray_cluster.runner(launch.workers, refuse_submitted)
    return local.runner(launch.workers, refuse_submitted)


def is_elsewhere(launch: ClusterLaunch, folder: Path) -> bool:
    """Return whether the work in `folder` may run on other machines than this one."""
    return _slurm(launch, folder) is not None or chosen_backend(launch) == "ray"


def gpus_elsewhere(launch: ClusterLaunch, folder: Path) -> Gpus | None:
    """Return the GPUs of the site that the work in `folder` is submitted to; None: it is not."""
    runs = _slurm(launch, folder)
    return runs.site.gpus if runs else None


def describe(launch: ClusterLaunch, work: Work) -> str:
    """Return where the work would run; for Slurm the site's settings and the sbatch script."""
    runs = _slurm(launch, work.folder)
    if not runs:
        where = chosen_backend(launch)
        return f"{len(missing(work))} of {work.count} shards to do, on this machine ({where})"
    alive = submit.in_work(work.folder) if slurm.has_slurm() else {}
    units = sorted(set(missing(work)).difference(*alive.values()))
    if not units:
        return "no shard is left to submit: all are whole, or in jobs that live"
    array = submit.cut_units(work, units, nodes=runs.nodes, site=runs.site, workers=runs.workers)
    lines = [
        f"{len(units)} of {work.count} shards to do: an array of {len(array.elements)} elements, "
        f"at most {min(runs.nodes, len(array.elements))} at once; each has up to "
        f"{max(map(len, array.elements))} shards, {array.workers} at a time, {array.gpus} GPUs and "
        f"{array.cpus} cores of a node",
        *([_IDLE_GPUS] if array.gpus and work.device == "cpu" else []),
        "site:",
        *(f"  {key}  {value}" for key, value in flatten(to_dict(runs.site)).items()),
        "sbatch script:",
        *(f"  {line}" for line in submit.script(work, array).splitlines()),
    ]
    return "\n".join(lines)


def _slurm(launch: ClusterLaunch, folder: Path) -> Slurm | None:
    """Return what submits: as flags say, and for a `--resume` also what was recorded."""
    backend = chosen_backend(launch)
    file = jobs_folder(folder) / submit.LAUNCH
    elsewhere = launch.local or launch.backend not in (None, "slurm")
    told = read_json(file) if launch.resume and file.exists() else None
    if elsewhere or (backend != "slurm" and not told):
        refuse_slurm_flags(launch)
        return None
    nodes, workers = launch.nodes, launch.workers
    if told and not launch.cluster:
        refuse_unsigned(told, file)
        site = with_flags(build(SiteConfig, told["site"], source=str(file)), launch)
        return Slurm(
            site, nodes or told["nodes"], wait=launch.wait, workers=workers or told["workers"]
        )
    return Slurm(slurm.complete(read_site(launch)), nodes or 1, wait=launch.wait, workers=workers)


def _submitted(work: Work, runs: Slurm, *, launch: ClusterLaunch) -> None:
    """Submit, and leave a record for a later `--resume`."""
    if launch.resume and not launch.cluster:
        _tell_of_another_site(runs.site, launch)
    if runs.site.gpus_per_node and work.device == "cpu":
        logger.warning(_IDLE_GPUS)
    told = {"nodes": runs.nodes, "workers": runs.workers, "site": to_dict(runs.site)}
    write_json(jobs_folder(work.folder) / submit.LAUNCH, signed(told))
    runs(work)


def _tell_of_another_site(site: SiteConfig, launch: ClusterLaunch) -> None:
    """Say where the site of the first launch, which a resumed one has, is not that of the file."""
    file = os.environ.get("DWF_CLUSTER")
    if not file:
        return
    with suppress(ConfigError):  # nothing is asked of it
        now = to_dict(slurm.complete(read_site(launch)))
        other = [f"{key} {value}" for key, value in to_dict(site).items() if value != now[key]]
        if other:
            logger.warning(
                "jobs are asked for as at the first launch (%s); what %s says now is taken with "
                "--cluster %s",
                ", ".join(other),
                file,
                shlex.quote(file),
            )


def signed(told: dict[str, Json]) -> dict[str, Json]:
    """Return the record of a launch with what only this user can write of it."""
    return told | {"signed": trust.signature({submit.LAUNCH: json.dumps(told, sort_keys=True)})}


def refuse_unsigned(told: dict[str, Json], file: Path) -> None:
    """Raise unless this user wrote the record of a launch: jobs begin with its shell lines.

    Raises:
        ConfigError: another user wrote it, or it was altered.
    """
    rest = {key: value for key, value in told.items() if key != "signed"}
    if told != signed(rest):
        raise ConfigError(
            f"{file} says how jobs are submitted, shell lines that they run among it, and you have "
            "not signed it: another user wrote it, or it was altered; give your own site's file "
            "with --cluster FILE"
        )


def refuse_submitted(folder: Path) -> None:
    """Raise `RunConflict` where jobs of Slurm have the work of a folder."""
    alive = submit.in_work(folder)
    if alive:
        jobs = submit.job_numbers(alive)
        raise RunConflict(
            f"{folder} is being worked on by Slurm job {', '.join(jobs)}: watch it with "
            f"{going_on(folder)}, or end it with scancel {' '.join(jobs)}"
        )
