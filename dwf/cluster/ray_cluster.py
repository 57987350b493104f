"""Run units of work as Ray tasks: on this machine, or over the nodes of a Ray that is there."""

import atexit
import logging
import math
import os
import platform
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dwf import data_paths, preemption, trust
from dwf.cluster.local import KEEP_FREED_MEMORY, ONE_THREAD, SECONDS_BETWEEN_LOOKS
from dwf.cluster.work import (
    Refuse,
    attempt,
    missing,
    progress_of,
    raise_failures,
    reason,
    refuse_none,
    show,
)
from dwf.errors import ConfigError, Preempted
from dwf.extras import require
from dwf.run_folder import hold
from dwf.stages import Runner, Work
from dwf.systems import num_cores

if TYPE_CHECKING:
    import ray

RETRIES = 3
ENVIRONMENT = KEEP_FREED_MEMORY | ONE_THREAD

# Ray hands indices and None around; data lies on disk.
_OBJECT_STORE_BYTES = 256 * 2**20
# A socket's path has 107 bytes at most: Ray adds 66 to its folder's, which has 15 of its own.
_LONGEST_PARENT = 26
_LOOPBACK = "127.0.0.1"
_SECONDS_TO_ANSWER = 10.0
_AUTHENTICATION = "ray._private.authentication"
_STOPPED = "stopped by a signal"


def connect(workers: int | None = None) -> None:
    """Join the Ray at `$RAY_ADDRESS`, or start one on this machine; once per process.

    Every task gets one thread. A Ray that is started here ends with this process, also by kill -9,
    which leaves its logs in the temporary folder; it sends no usage statistics, has no dashboard.
    No other machine reaches it, and no other user its folder.

    Args:
        workers: tasks at once of a Ray started here; default: one per core. One that is joined
            has its own number.

    Raises:
        ConfigError: no Ray answers at the address; this is a job of several nodes without one; or
            Ray is not installed.
    """
    require("ray", who="Ray (--backend ray, sweeps)")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning a worker
    address = os.environ.get("RAY_ADDRESS")
    if not address:  # Ray reads it as it is imported; without, it listens on all addresses
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    if ray.is_initialized():
        return
    handlers = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    if address:
        _join(address)
    else:
        _refuse_several_nodes()
        _start(workers or num_cores())
    for number, handler in handlers.items():
        if callable(handler):  # Ray took its place, and would end the process in mid-step
            signal.signal(number, handler)


def runner(workers: int | None = None, refuse: Refuse = refuse_none) -> Runner:
    """Return what runs `Work` as Ray tasks; `workers` as in `connect`, `refuse` as in `local`."""
    return partial(run, workers=workers, refuse=refuse)


def run(work: Work, workers: int | None = None, *, refuse: Refuse = refuse_none) -> None:
    """Run the units that are not done; every unit is tried though others fail.

    A unit takes one CPU and an even share of the GPUs, if Ray has any. It is idempotent: where its
    worker or node died, Ray does it again on whatever node is free, up to `RETRIES` times
    (`max_retries`); where a file could not be read or written, `attempt` does, on the same node.

    Raises:
        WorkFailed: units failed; names each with its reason and node.
        Preempted: a signal asked to stop; the units in work saved what they had.
        ConfigError, RunConflict: as in `connect` and `hold`.
    """
    refuse(work.folder)
    with hold(work.folder / "run"):
        todo = missing(work)
        if todo:
            connect(workers)
            raise_failures(work, _run(work, todo))


def _run(work: Work, todo: list[int]) -> dict[int, str]:
    import ray

    task = ray.remote(_do).options(
        name=work.what, num_cpus=1, num_gpus=_gpu_share(), max_retries=RETRIES
    )
    told = False
    with progress_of(work) as bar:
        refs = [task.remote(work.unit, work.folder, index) for index in todo]
        waiting = refs
        while waiting:
            _, waiting = ray.wait(waiting, timeout=SECONDS_BETWEEN_LOOKS, fetch_local=False)
            show(work, bar)
            if preemption.is_asked() and not told:
                told = True
                for ref in waiting:
                    ray.cancel(ref)  # in a unit: SIGINT's handler, which asks it to save
    failed = {index: _failure(ref) for index, ref in zip(todo, refs, strict=True)}
    failed = {index: why for index, why in failed.items() if why}
    if preemption.is_asked() and failed:
        preemption.stop()
    if _STOPPED in failed.values():
        raise Preempted(f"workers of {work.folder} were stopped by a signal")
    return failed


def _gpu_share() -> float:
    """Return each unit's share of a GPU: as many units share the GPUs as there are CPUs."""
    import ray

    have = ray.cluster_resources()
    share = min(1.0, have.get("GPU", 0) / max(have.get("CPU", 1), 1))
    return math.floor(share * 10_000) / 10_000  # Ray counts in ten-thousandths


def _do(unit: Callable[[Path, int], None], folder: Path, index: int) -> str | None:
    """Run a unit in a Ray worker; return why it failed and where, None if it is whole.

    `ray.cancel` and signals ask it to save, instead of ending the process in mid-step.
    """
    handlers = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    preemption.watch()
    try:
        attempt(unit, folder, index=index)
    except Preempted:
        return _STOPPED
    except Exception as error:
        return f"{reason(error)} (on node {platform.node()})"
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        preemption.forget()  # the process goes on to other units
    return None


def _failure(ref: "ray.ObjectRef") -> str | None:
    """Return what `_do` returned, or why it could not return."""
    import ray
    from ray.exceptions import RayError, TaskCancelledError, WorkerCrashedError

    try:
        return ray.get(ref)
    except TaskCancelledError:
        return _STOPPED
    except WorkerCrashedError:
        return f"its worker process died {1 + RETRIES} times (killed, or out of memory)"
    except RayError as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _join(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "/" not in host:  # Ray itself would ask a dead address for minutes
            socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
        variables = ENVIRONMENT | trust.handed_on() | data_paths.handed_on()
        ray.init(address=address, runtime_env={"env_vars": variables}, logging_level="WARNING")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"RAY_ADDRESS = {address}: no Ray answers ({error}): start one over the nodes of a job "
            "as slurm/zoo.sh does, or unset RAY_ADDRESS to start one on this machine"
        ) from error


def _refuse_several_nodes() -> None:
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    if nodes != "1":
        raise ConfigError(
            f"this job has {nodes} nodes, and no Ray runs on them (RAY_ADDRESS is not set): "
            f"`sbatch --nodes {nodes} slurm/zoo.sh` with the same flags (or sweep.sh) starts one"
        )


def _start(workers: int) -> None:
    import ray

    os.environ.update(ENVIRONMENT)  # what Ray's processes inherit
    # Ray refuses who has no token. Left alone it writes one into the home folder, and warns of it.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    logging.getLogger(f"{_AUTHENTICATION}.authentication_token_setup").setLevel(logging.ERROR)
    parent = tempfile.gettempdir()
    if len(parent) > _LONGEST_PARENT:
        parent = "/tmp"
    folder = tempfile.mkdtemp(prefix="ray-", dir=parent)
    atexit.register(_end, folder)
    ray.init(
        num_cpus=workers,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level="WARNING",
        _node_ip_address=_LOOPBACK,
        _temp_dir=f"{folder}/r",  # which Ray opens to all; the folder around it stays the user's
    )


def _end(folder: str) -> None:
    import ray

    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
