"""Pick what runs the work: worker processes here, a Slurm job array, or Ray."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from dwf.cluster import local, slurm, submit
from dwf.cluster.config import ClusterLaunch, SiteConfig, chosen_backend, read_site, with_flags
from dwf.cluster.element import jobs_folder
from dwf.cluster.watch import Slurm
from dwf.cluster.work import Work, missing
from dwf.errors import RunConflict
from dwf.run_folder import write_json
from dwf.settings import build, flatten, to_dict


def runner(launch: ClusterLaunch, folder: Path) -> Any:
    """Return what runs the work in `folder`, as the flags say; a `--resume` goes on where it was.

    Raises:
        ConfigError: flags contradict each other, the site's file is wrong, or there is no Slurm.
    """
    backend = chosen_backend(launch)
    resumed = _recorded(launch, folder)
    if backend == "slurm" or resumed:
        slurm.require_slurm()
        runs = resumed or _slurm(launch)
        return partial(_submitted, runs=runs)
    if backend == "ray":
        from dwf.cluster import ray_cluster

        return partial(_alone, run=ray_cluster.runner(launch.workers))
    return partial(_alone, run=local.runner(launch.workers))


def describe(launch: ClusterLaunch, work: Work) -> str:
    """Return where the work would run; for Slurm the site's settings and the sbatch script."""
    backend = chosen_backend(launch)
    runs = _recorded(launch, work.folder)
    if backend != "slurm" and not runs:
        return f"{len(missing(work))} of {work.count} shards to do, on this machine ({backend})"
    runs = runs or _slurm(launch)
    units = missing(work)
    if not units:
        return "no shard is missing: nothing would be submitted"
    array = submit.plan_array(work, units, runs.nodes, runs.site, runs.workers)
    lines = [
        f"{len(units)} of {work.count} shards to do: an array of {len(array.groups)} elements, at "
        f"most {min(runs.nodes, len(array.groups))} at once; each has up to "
        f"{max(map(len, array.groups))} shards, {array.workers} at a time, {array.gpus} GPUs and "
        f"{array.cpus} cores of a node",
        "site:",
        *(f"  {key}  {value}" for key, value in flatten(to_dict(runs.site)).items()),
        "sbatch script:",
        *(f"  {line}" for line in submit.script(work, array).splitlines()),
    ]
    return "\n".join(lines)


def _slurm(launch: ClusterLaunch) -> Slurm:
    site = slurm.complete(read_site(launch))
    return Slurm(site, launch.nodes or 1, launch.wait, launch.workers)


def _recorded(launch: ClusterLaunch, folder: Path) -> Slurm | None:
    """For a bare `--resume`: where the folder's jobs were submitted."""
    file = jobs_folder(folder) / submit.LAUNCH
    said = launch.nodes or launch.backend or launch.local or launch.cluster
    if not launch.resume or said or not file.exists():
        return None
    told = json.loads(file.read_text())
    site = with_flags(build(SiteConfig, told["site"], str(file)), launch)
    return Slurm(site, told["nodes"], launch.wait, told["workers"])


def _submitted(work: Work, runs: Slurm) -> None:
    """Submit, and leave a record for a later `--resume`."""
    told = {"nodes": runs.nodes, "workers": runs.workers, "site": to_dict(runs.site)}
    write_json(jobs_folder(work.folder) / submit.LAUNCH, told)
    runs(work)


def _alone(work: Work, run: Any) -> None:
    """Run here, unless jobs of Slurm have this work."""
    alive = submit.in_work(work.folder)
    if alive:
        jobs = sorted({job for job, _ in alive})
        raise RunConflict(
            f"{work.folder} is being worked on by Slurm job {', '.join(jobs)}: watch it with "
            f"--resume --name {work.folder.name}, or end it with scancel {' '.join(jobs)}"
        )
    run(work)
