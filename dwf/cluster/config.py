"""Where work runs: the flags of a launch, and the file that describes a site."""

import os
import re
import shlex
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from dwf.checked import Checked
from dwf.compute import Gpus
from dwf.errors import ConfigError
from dwf.settings import Count, Expert, Launch, Positive, Preset, Repeated, Whole, find_file, load

SITE_FLAGS = ("gpus_per_node", "partition", "time")
Backend = Literal["slurm", "ray", "local"]
# Slurm looks at its clock every 30 seconds, and may signal as much too early.
_LEAST_SECONDS = 50
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class SiteConfig(Checked):
    """A partition of a Slurm cluster; what is not said is asked of `sinfo`, or left to Slurm."""

    partition: str | None = None
    """Partition; default: the cluster's."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that a node must have."""
    gpus_per_node: Whole | None = None
    """GPUs of a node; one worker each. 0 on a CPU partition: then one worker per core."""
    cpus_per_node: Count | None = None
    """Cores of a node."""
    memory_gb: Positive | None = None
    """Memory of a node; a job that takes part of a node asks for its part."""
    gpu_memory_gb: Positive | None = None
    """Memory of a GPU, by which `--dry-run` says whether a training fits."""
    time: str = "4:00:00"
    """Time limit of a job, as Slurm writes it; work that is not done by then is saved and requeued.
    Quoted: YAML reads a bare 4:00:00 as a number."""
    signal_seconds: Count = 120
    """How long before the time limit a job is told to save; longer than a step takes."""
    requeues: Count = 1000
    """How often a job may run into its time limit before it is given up."""
    array_elements: Count | None = None
    """Elements of a job array at most, where a limit of a QOS or an account is below Slurm's own;
    an element then does more units."""
    setup: tuple[str, ...] = ()
    """Shell lines at the start of a job: modules, environment."""
    scratch: Path | None = None
    """Folder of each node for temporary files; becomes `TMPDIR`."""
    sbatch: dict[str, str] = field(default_factory=dict)
    """Further options of sbatch, without the dashes: `{reservation: mine}`."""

    @property
    def gpus(self) -> Gpus:
        """GPUs of a node."""
        return Gpus(self.gpus_per_node or 0, self.gpu_memory_gb)

    def __post_init__(self):
        words = ("partition", "account", "qos", "constraint", "time", "scratch")
        told = {key: vars(self)[key] for key in words}
        told |= {f"sbatch.{option}": value for option, value in self.sbatch.items()}
        for option in self.sbatch:
            if not _OPTION.fullmatch(option):
                raise ValueError(
                    f"sbatch = {{{option!r}: ...}}: expected the name of an option without its "
                    "dashes, of letters, digits, - and _, as reservation"
                )
        if faults := [fault for key, value in told.items() if (fault := control_in(key, value))]:
            raise ValueError(faults[0])
        left = 60 * minutes(self.time) - self.signal_seconds
        if left < _LEAST_SECONDS:
            raise ValueError(
                f"time = {self.time!r} with signal_seconds = {self.signal_seconds}: jobs are told "
                f"to save {left} s after they begin; leave at least {_LEAST_SECONDS} s for work"
            )


def control_in(key: str, value: object) -> str:
    """Say that a text has a control character, which ends a line of a script; "" where it has none.

    Args:
        key: what it is.
        value: the text, or a path; None is none.
    """
    found = None if value is None else _CONTROL.search(str(value))
    if not found:
        return ""
    return (
        f"{key} = {str(value)!r} has the control character {found[0]!r}, and becomes part of a "
        "job's script: give it without"
    )


def refuse_control(key: str, value: object) -> None:
    """Raise `ConfigError` where `control_in` finds something."""
    if fault := control_in(key, value):
        raise ConfigError(fault)


@dataclass(frozen=True)
class SlurmLaunch(Launch):
    """How a command's work is given to Slurm."""

    local: ClassVar[bool] = False
    """Whether it stays on this machine in spite of `nodes`; a flag of commands that can."""
    nodes: Count | None = None
    """Nodes to use at once, through Slurm; default: this machine alone."""
    cluster: Annotated[Path, Preset("cluster")] | None = None
    """YAML file of the site, or a preset; default: $DWF_CLUSTER, or what `sinfo` says."""
    gpus_per_node: Whole | None = None
    """GPUs of a node, instead of the site's."""
    partition: str | None = None
    """Partition, instead of the site's."""
    time: str | None = None
    """Time limit of a job, instead of the site's."""
    wait: bool = True
    """Wait for the jobs and show how far they are; else the command given again shows it."""


@dataclass(frozen=True)
class ClusterLaunch(SlurmLaunch):
    """Where units of work are done."""

    backend: Backend | None = None
    """Where units run; default: slurm with --nodes, else local."""
    local: bool = False
    """Short for --backend local: worker processes on this machine, however many nodes."""
    workers: Count | None = None
    """Worker processes on this machine, or on each node; default: one per core or GPU. Changes no
    byte of what is made."""


@dataclass(frozen=True)
class RankedLaunch(SlurmLaunch):
    """Where the ranks of one training run."""

    engine: Literal["plain", "ddp", "deepspeed"] | None = None
    """Engine of all that trains, codec and density, in place of their `training.engine`; several
    ranks: ddp, deepspeed."""
    trust_pickle: Annotated[tuple[Path, ...], Repeated(), Expert()] = ()
    """Checkpoint of another user's that may be unpickled, which runs what code it holds."""


def chosen_backend(launch: ClusterLaunch) -> Backend:
    """Return which backend the flags ask for.

    Raises:
        ConfigError: they contradict each other, or one would have no effect.
    """
    if launch.local and launch.backend not in (None, "local"):
        raise ConfigError(f"--local and --backend {launch.backend}: give one of them")
    if launch.backend == "ray" and launch.nodes:
        raise ConfigError(
            f"--nodes {launch.nodes} and --backend ray: Ray runs on this machine, or over the "
            f"nodes of a job: sbatch --nodes {launch.nodes} slurm/zoo.sh"
        )
    if launch.local:
        return "local"
    return launch.backend or ("slurm" if launch.nodes else "local")


def words_of(launch: ClusterLaunch) -> list[str]:
    """Return the words of a command line by which another command does its units there."""
    words = []
    for each in fields(launch)[len(fields(Launch)) :]:
        flag, value = each.name.replace("_", "-"), getattr(launch, each.name)
        if isinstance(value, bool):
            words += [f"--{flag}" if value else f"--no-{flag}"] * (value != each.default)
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words


def refuse_slurm_flags(launch: SlurmLaunch) -> None:
    """Raise `ConfigError` for flags that have no effect where Slurm is not asked."""
    given = {f"--{name.replace('_', '-')}": getattr(launch, name) for name in SITE_FLAGS}
    given |= {"--cluster": launch.cluster, "--no-wait": not launch.wait or None}
    excused = launch.nodes and launch.local
    for flag, value in given.items():
        if value is not None and not excused:
            raise ConfigError(f"{flag} is about Slurm: add --nodes N, or leave it out")


def read_site(launch: SlurmLaunch) -> SiteConfig:
    """Return the site: its file, with what flags say in the place of what it says.

    Raises:
        ConfigError: no such file, or a setting that is wrong.
    """
    file = launch.cluster or os.environ.get("DWF_CLUSTER")
    return with_flags(
        load(SiteConfig, find_file(file, "cluster")) if file else SiteConfig(), launch
    )


def with_flags(site: SiteConfig, launch: SlurmLaunch) -> SiteConfig:
    """Return a site with what flags say in the place of what it says; errors as above."""
    flags = {name: getattr(launch, name) for name in SITE_FLAGS}
    try:
        return replace(site, **{name: value for name, value in flags.items() if value is not None})
    except ValueError as error:
        raise ConfigError(f"command line: {error}") from None


def setup_lines(site: SiteConfig) -> list[str]:
    """Return the shell lines that a job begins with."""
    lines = list(site.setup)
    if site.scratch:
        lines += [f"export TMPDIR={shlex.quote(str(site.scratch))}", 'mkdir -p "$TMPDIR"']
    return lines


def minutes(time: str) -> int:
    """Return a Slurm time (`30`, `4:00:00`, `2-12`, `2-12:30`) in minutes, rounded up."""
    match = _TIME.fullmatch(time.strip())
    if not match:
        raise ValueError(f"time = {time!r}: expected minutes, H:MM:SS or D-HH:MM")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:
        hours, mins, seconds = (*numbers, 0, 0)[:3]
        return int(days) * 1440 + hours * 60 + mins + (seconds > 0)
    if len(numbers) == 3:
        return numbers[0] * 60 + numbers[1] + (numbers[2] > 0)
    return numbers[0] + (len(numbers) == 2 and numbers[1] > 0)
