"""Which of how many processes this one is, and what these processes do together.

They work together by MPI, or by what `use` was given: see `distributed.py`.

Work is cut into parts by the settings alone, never by the number of ranks, and what the parts give
is taken in their order: so any number of ranks, one included, gives the same last bit.
"""

import io
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from dwf import screen
from dwf.errors import WrongLaunch, exit_cleanly
from dwf.messages import sendable
from dwf.mpi import MpiComm
from dwf.systems import begin_in_utf8

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
P = ParamSpec("P")

# (launcher, rank, world, local rank) as each names them. Torchrun first, since it may run in a job;
# mpiexec before srun, since it may run in a step of one task. In a batch script outside any step
# SLURM_PROCID and SLURM_NTASKS are set too: only a step counts its own tasks.
TORCHRUN, SRUN = "torchrun", "srun"
_LAUNCHERS = (
    (TORCHRUN, "RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("mpiexec or srun --mpi=pmi2", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    (SRUN, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)
# Waiting ranks look often at first, then leave the core to those that work.
_SECONDS_OF_SPINNING, _LONGEST_SLEEP = 2e-3, 0.02
# An abort kills the launcher's own helpers too, and with them what they have not passed on yet.
_SECONDS_TO_BE_HEARD = 1.0


@dataclass(frozen=True)
class Ranks:
    """This process among those of its program: `rank` of `world`, `local` on its node."""

    rank: int = 0
    world: int = 1
    local: int = 0
    launcher: str = field(default="", compare=False)

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes what is written once."""
        return self.rank == 0


def find_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Read rank and world size from the environment; 0 of 1 where no launcher set them."""
    for launcher, rank, world, local in _LAUNCHERS:
        if rank in environment and world in environment:
            return Ranks(
                int(environment[rank]),
                int(environment[world]),
                local=int(environment.get(local, 0)),
                launcher=launcher,
            )
    return Ranks()


class Request(Protocol):
    """A wait that was begun."""

    def Test(self) -> bool:  # noqa: N802  MPI's name
        """Whether it is over."""


class Communicator(Protocol):
    """How ranks tell each other values that `messages.pack` takes."""

    rank: int
    size: int

    def allgather(self, value: T) -> list[T]:
        """Return every rank's value, in order, on all."""

    def gather(self, value: T) -> list[T] | None:
        """Return every rank's value on the first, None on the others."""

    def bcast(self, value: T) -> T:
        """Return the first rank's value on all."""

    def alltoall(self, values: list[T]) -> list[T]:
        """Send value r to rank r; return what the ranks sent to this one, in order."""

    def allreduce(self, number: int) -> int:
        """Return the sum over ranks, on all."""

    def Ibarrier(self) -> Request:  # noqa: N802  MPI's name
        """Begin to wait for all ranks."""

    def Abort(self, code: int) -> None:  # noqa: N802  MPI's name
        """End all ranks at once."""


class World:
    """The processes of this program, each with a number; use `world`.

    All of them must make the same calls in the same order. An error of one is raised by all, so
    none waits for one that gave up.

    Args:
        comm: how they tell each other values; None for one process alone.
        explain: returns an error, or in its place one that says which rank was lost.
    """

    def __init__(
        self,
        comm: Communicator | None = None,
        explain: Callable[[BaseException], BaseException] = lambda error: error,
    ):
        self._comm, self._explain = comm, explain
        self.rank, self.size = (comm.rank, comm.size) if comm else (0, 1)
        self.shared_error: BaseException | None = None
        """The last error that all ranks raised."""
        self.owns_error = False
        """Whether it came from this rank."""

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes what is written once."""
        return self.rank == 0

    def in_order(self, count: int, compute: Callable[[int], T]) -> Iterator[T]:
        """Yield compute(0), compute(1), ... up to `count`, in this order and on every rank.

        Rank r computes parts r, r + size, ...; a round of `size` parts is held at a time. One
        process computes each part when it is asked for. In `compute`, `world()` is one process.

        Args:
            count: how many parts.
            compute: gives a part that `messages.pack` takes; called for this rank's parts alone.

        Raises:
            Exception: what `compute` raised, on all ranks; that of the lowest part if several did.
        """
        if self.size == 1:
            yield from map(compute, range(count))
            return
        for part, start in self._rounds(count, compute):
            yield from self._comm.allgather(part)[: count - start]

    def to_first(self, count: int, compute: Callable[[int], T]) -> Iterator[T | None]:
        """Yield the parts as `in_order`, but on the first rank alone; None on the others."""
        if self.size == 1:
            yield from map(compute, range(count))
            return
        for part, start in self._rounds(count, compute):
            parts = self._comm.gather(part)
            yield from (parts or [None] * self.size)[: count - start]

    def add_up(
        self, count: int, compute: Callable[[int], "np.ndarray"], *, shape: tuple[int, ...]
    ) -> "np.ndarray":
        """Return compute(0) + compute(1) + ..., added in this order, on every rank.

        As a loop over `in_order`, but no rank holds more than two parts and the sum: each adds a
        slice of the numbers for all.

        Args:
            count: how many parts.
            compute: gives a part, float64 of `shape`; called for this rank's parts alone.
            shape: the shape of a part and of the sum.

        Raises:
            Exception: as `in_order`.
        """
        import numpy as np  # on use: every command imports this module, also for its help

        num = int(np.prod(shape))
        total_S = np.zeros(num // self.size + (self.rank < num % self.size))  # as array_split cuts
        for part, start in self._rounds(count, compute):
            slices = [None] * self.size
            if part is not None:
                slices = np.array_split(np.ascontiguousarray(part).reshape(-1), self.size)
            slices = self._comm.alltoall(slices) if self._comm else slices
            for slice_S in slices[: count - start]:
                total_S += slice_S
        total = np.concatenate(self._comm.allgather(total_S)) if self._comm else total_S
        return total.reshape(shape)

    def on_first(self, compute: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Return what `compute(*args, **named)` gives on rank 0, on every rank.

        The others wait and leave their cores free. In `compute`, `world()` is one process. Above a
        function without arguments it may stand as a decorator: the name is then what it returned.

        Raises:
            Exception: what `compute` raised, on all ranks.
        """
        if self.size == 1:
            return compute(*args, **named)
        value, error = self._try(lambda _: compute(*args, **named), 0, 1)
        self._share(error)
        return self._comm.bcast(value)

    def on_all(self, compute: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Return what `compute(*args, **named)` gives on this rank; raise what one raised, on all.

        Otherwise as `on_first`.
        """
        if self.size == 1:
            return compute(*args, **named)
        value, error = self._try(lambda _: compute(*args, **named), 0, self.size)
        self._share(error)
        return value

    def barrier(self) -> None:
        """Return when all ranks have called it."""
        if self.size > 1:
            self._wait()

    def any(self, flag: bool) -> bool:
        """Whether the flag of any rank is set."""
        return bool(self._comm.allreduce(int(flag))) if self.size > 1 else flag

    def explain(self, error: BaseException) -> BaseException:
        """Return the error; in its place, where a rank was lost, one that says which."""
        return self._explain(error)

    def abort(self, code: int) -> None:
        """End all ranks at once; for an error of one rank that the others cannot know of."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_SECONDS_TO_BE_HEARD)
        self._comm.Abort(code)

    def _rounds(self, count: int, compute: Callable[[int], T]) -> Iterator[tuple[T | None, int]]:
        """Yield this rank's part of each round, None where it has none, and the first's index."""
        for start in range(0, count, self.size):
            part, error = self._try(compute, start, count)
            self._share(error)
            yield part, start

    def _try(
        self, compute: Callable[[int], T], start: int, count: int
    ) -> tuple[T | None, BaseException | None]:
        """Compute this rank's part of a round; return (part, None) or (None, error)."""
        if start + self.rank >= count:
            return None, None
        if self.size == 1:
            return compute(start), None
        try:
            with alone():
                return compute(start + self.rank), None
        except (Exception, KeyboardInterrupt) as error:
            return None, sendable(error)

    def _share(self, own: BaseException | None) -> None:
        """Wait for all ranks; raise the error of the lowest that has one, on all.

        Where it is this rank's own, it has its traceback.
        """
        if self.size == 1:
            return
        self._wait()
        for rank, error in enumerate(self._comm.allgather(own)):
            if error is not None:
                self.owns_error = rank == self.rank
                self.shared_error = own if self.owns_error else error
                raise self.shared_error

    def _wait(self) -> None:
        """Wait for all ranks; MPI itself would wait by taking a whole core."""
        request, began, nap = self._comm.Ibarrier(), time.monotonic(), 0.0
        while not request.Test():
            if time.monotonic() - began > _SECONDS_OF_SPINNING:
                nap = min(nap + 1e-3, _LONGEST_SLEEP)
            time.sleep(nap)


_ALONE = World()
_world: World | None = None
_is_alone = False


def world() -> World:
    """Return the ranks that a launcher started with this one; one process without a launcher.

    One process does not import MPI. In a part that `World` computes it is one process, too.

    Raises:
        WrongLaunch: several ranks were started, and MPI is missing or does not connect them.
    """
    if _is_alone:
        return _ALONE
    if _world is None:
        ranks = find_ranks()
        use(_connect(ranks) if ranks.world > 1 else None)
    return _world


def use(
    comm: Communicator | None,
    explain: Callable[[BaseException], BaseException] = lambda error: error,
) -> None:
    """Let these ranks work together by a communicator, see `World`; None: each is alone."""
    global _world
    _world = World(comm, explain) if comm else _ALONE
    if comm:
        sys.excepthook = _end_all


@contextmanager
def alone() -> Iterator[None]:
    """Within, `world()` is this process alone, whatever launcher started it.

    For work that another engine hands out: its processes inherit the variables of their launcher.
    """
    global _is_alone
    before, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = before


def _mpi() -> ModuleType:
    from mpi4py import MPI

    return MPI


def _connect(ranks: Ranks) -> Communicator:
    asked = f"this process was started by {ranks.launcher} as rank {ranks.rank} of {ranks.world}"
    if ranks.launcher == TORCHRUN:
        raise WrongLaunch(
            f"{asked}, but this command's ranks work together by MPI: start it with `mpiexec -n "
            f"{ranks.world} python ...`, or as one process with `python ...`; to train on several "
            "ranks give dwf generator --engine ddp or deepspeed"
        )
    try:
        comm = _mpi().COMM_WORLD
    except (ImportError, RuntimeError) as error:  # without a library mpi4py raises RuntimeError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WrongLaunch(
            f"{asked}, but no MPI library can be loaded ({reason}): load your site's MPI module or "
            "`pip install mpi4py 'mpich<5'` (dwf's extra [mpi]), or start one process with `python "
            "...`"
        ) from None
    if comm.size != ranks.world:
        library = _mpi().Get_library_version().split(",")[0].splitlines()[0].strip("\0 ")
        raise WrongLaunch(
            f"{asked}, but MPI ({library}) connects it to {comm.size} of them: start ranks with "
            "`srun --mpi=pmi2` (MPICH) or `srun --mpi=pmix` (Open MPI), or with the mpiexec of "
            "this MPI"
        )
    return MpiComm(comm)


def exit_together(main: Callable[[], None]) -> None:
    """Run a command that may be started as several ranks; see `exit_cleanly`.

    A user's error that all ranks share is told by the first, a bug by the rank that has it. An
    error of one rank alone ends all, as the others would wait for it.
    """
    begin_in_utf8()
    exit_cleanly(partial(_speak_once, main))


def _speak_once(main: Callable[[], None]) -> None:
    try:
        with screen.kept():
            main()
    except (Exception, KeyboardInterrupt) as error:
        if (_world or _ALONE).size == 1:
            raise
        error = _world.explain(error)
        text, code = _told(error)
        _leave(error, text, code, is_bug=code == 1)


def _told(error: BaseException) -> tuple[str, int]:
    """Return what `exit_cleanly` would print, and its exit code; 1 for a bug."""

    def main() -> None:
        raise error

    text, trace = io.StringIO(), error.__traceback__
    with redirect_stdout(text), redirect_stderr(text):
        try:
            exit_cleanly(main)
        except SystemExit as leaving:
            return text.getvalue(), int(leaving.code or 0)
        except BaseException:
            return "".join(traceback.format_exception(type(error), error, trace)), 1
    return text.getvalue(), 0


def _leave(error: BaseException, text: str, code: int, is_bug: bool) -> None:
    ours = _world or _ALONE
    if error is not ours.shared_error:
        print(f"rank {ours.rank} of {ours.size}: {text}", end="", file=sys.stderr, flush=True)
        ours.abort(code)
    if ours.owns_error if is_bug else ours.is_first:
        print(text, end="", file=sys.stderr if code else sys.stdout, flush=True)
    sys.exit(code)


def _end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell of an error that no one caught, in a program that is none of the commands."""
    error = (_world or _ALONE).explain(error)
    text = "".join(traceback.format_exception(type(error), error, trace))
    with suppress(SystemExit):  # Python exits with 1 after this hook
        _leave(error, text, 1, is_bug=True)
