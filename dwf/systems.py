"""Questions to the operating system, which Linux and macOS answer differently.

dwf is tested on Linux. It does not compute on Apple's GPUs. `dwf/__init__.py` refuses Windows.
"""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

NO_MPS = "dwf does not compute on Apple's GPUs (mps): take device cpu"
# Never all of SLURM_*: SLURM_JWT is a secret, and records are read by many.
_JOB = (
    "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_CLUSTER_NAME", "SLURM_CPUS_ON_NODE",
    "SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE", "SLURM_JOB_GPUS",
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES",
    "SLURM_JOB_PARTITION", "SLURM_MEM_PER_NODE", "SLURM_PROCID", "SLURM_RESTART_COUNT",
    "SLURM_STEP_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS",
)  # fmt: skip


def job_facts() -> dict[str, str]:
    """Return what Slurm says of the job that this process is in, by its variables' names."""
    return {name: os.environ[name] for name in _JOB if name in os.environ}


def begin_in_utf8() -> None:
    """Begin this program anew where the locale is no UTF-8, so that all names and texts are.

    Its workers and jobs inherit that. Python itself does so in the locale C, unless it is told not
    to.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)


def num_cores() -> int:
    """Return how many cores this process may use; where that cannot be asked, those of the machine.

    On Linux a job of Slurm, a container or `taskset` may allow fewer than there are.
    """
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def memory_mib() -> float:
    """Return the memory that is this process's own, in MiB: mapped files can be dropped anytime.

    Where the system does not tell the two apart, the most that the process has held of both.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 2**10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
