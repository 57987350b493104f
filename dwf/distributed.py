"""Ranks that work together through torch.distributed: those that train on several GPUs or nodes.

After `begin` the ranks that srun, torchrun or mpiexec started are those of `ranks.world()`.

A rank that is killed does not end the others: they would wait for it. So each rank beats, and one
that falls silent is named by the others, which then end too.
"""

import atexit
import os
import pickle
import platform
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from dwf.errors import WorkFailed, WrongLaunch
from dwf.ranks import Ranks, find_ranks, use

T = TypeVar("T")

# Until all ranks have met: their imports may take minutes on a busy file system.
_MEETING = timedelta(minutes=10)
# A collective of training; and one in which ranks wait for the first to finish long work.
_STEP, _PATIENT = timedelta(minutes=30), timedelta(days=30)
_SECONDS_BETWEEN_BEATS = 2.0
# Beats that a rank may miss before the others give up; and before it is named for a broken line.
_MOST_MISSED, _SUSPECT = 45, 4
# Below the ports that systems hand out themselves.
_PORTS = (12_000, 32_000)
_ENDED = b"ended"
# What a lost rank looks like to the others: gloo has no class of error for it.
_BROKEN = ("Connection closed", "Connection reset", "Broken pipe", "Timed out", "gloo", "NCCL")


def begin() -> Ranks:
    """Let the ranks of this program meet; one process alone needs no meeting.

    Where neither MASTER_ADDR nor a launcher says where, Slurm's first node is the place, on a port
    that follows from the job's number.

    Returns:
        This process among them.

    Raises:
        WrongLaunch: not all ranks came, or it cannot be known where to meet.
    """
    ranks = find_ranks()
    if ranks.world == 1 or dist.is_initialized():
        return ranks
    os.environ.update(RANK=str(ranks.rank), WORLD_SIZE=str(ranks.world))
    _find_place(ranks)
    _take_device(ranks)
    store = _meet(ranks)
    patient = dist.new_group(backend="gloo", timeout=_PATIENT)
    comm = TorchComm(patient, Beats(store, ranks))
    use(comm, comm.explain)
    return ranks


def _take_device(ranks: Ranks) -> None:
    """Choose this rank's GPU, where there are any; srun may show each rank its own alone."""
    local = ranks.local
    if torch.cuda.is_available():
        local %= torch.cuda.device_count()
        torch.cuda.set_device(local)
    os.environ["LOCAL_RANK"] = str(local)  # DeepSpeed takes the GPU of this number


def begin_alone() -> None:
    """Set up torch.distributed for this one process, for an engine that cannot do without."""
    os.environ.setdefault("LOCAL_RANK", "0")
    if not dist.is_initialized():
        dist.init_process_group(_backend(), store=dist.HashStore(), rank=0, world_size=1)
        atexit.register(_leave_group)


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def _meet(ranks: Ranks) -> dist.Store:
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=_MEETING))
        dist.init_process_group(_backend(), store=store, rank=rank, world_size=size, timeout=_STEP)
    except (dist.DistError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WrongLaunch(
            f"rank {ranks.rank} of {ranks.world} met no others at {place} ({reason}): see that all "
            "were started, that nodes reach each other there, and that the port is free (set "
            "MASTER_PORT, and GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME for the network to use)"
        ) from error
    atexit.register(_leave_group)
    return store


def _leave_group() -> None:
    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _find_place(ranks: Ranks) -> None:
    """Set MASTER_ADDR and MASTER_PORT where nobody has."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST")
    if "MASTER_ADDR" not in os.environ:
        if nodes is None:
            raise WrongLaunch(
                f"{ranks.launcher} started rank {ranks.rank} of {ranks.world}, but not where they "
                "meet: set MASTER_ADDR to the first rank's machine and MASTER_PORT to a free port "
                "(torchrun and srun need neither)"
            )
        os.environ["MASTER_ADDR"] = _first_address(nodes)
    os.environ.setdefault("MASTER_PORT", str(_port(os.environ)))


def _port(environment: Mapping[str, str]) -> int:
    """A port that all ranks of one attempt name and hardly any other job does."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    words = [environment.get(name, "0") for name in names]
    return random.Random("-".join(words)).randrange(*_PORTS)


def _first_address(nodes: str) -> str:
    """The address that Slurm itself reaches the first of some nodes by; nodes have several."""
    first = _scontrol("hostnames", nodes).split()[0]
    found = [w for w in _scontrol("node", first).split() if w.startswith("NodeAddr=")]
    return found[0].removeprefix("NodeAddr=") if found else first


def _scontrol(*words: str) -> str:
    command = ["scontrol", "show", *words]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise WrongLaunch(
            f"`{' '.join(command)}` does not answer ({error}), so it is not known where ranks "
            "meet: set MASTER_ADDR to the first node's address"
        ) from None


class TorchComm:
    """The communicator that `ranks.World` asks for, by torch.distributed.

    Args:
        group: of all ranks, on the CPU and patient.
        beats: who is alive.
    """

    def __init__(self, group: dist.ProcessGroup, beats: "Beats"):
        self.group, self.beats = group, beats
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def allgather(self, value: T) -> list[T]:
        """Return every rank's value, in order, on all."""
        values = [None] * self.size
        dist.all_gather_object(values, value, self.group)
        return values

    def gather(self, value: T) -> list[T] | None:
        """Return every rank's value on the first, None on the others."""
        values = [None] * self.size if self.rank == 0 else None
        dist.gather_object(value, values, dst=0, group=self.group)
        return values

    def bcast(self, value: T) -> T:
        """Return the first rank's value on all."""
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def alltoall(self, values: list[T]) -> list[T]:
        """Send value r to rank r; return what the ranks sent to this one, in order."""
        packed = [pickle.dumps(value, pickle.HIGHEST_PROTOCOL) for value in values]
        sent = torch.tensor([len(each) for each in packed])
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        data = torch.frombuffer(bytearray(b"".join(packed)), dtype=torch.uint8)
        out = torch.empty(int(received.sum()), dtype=torch.uint8)
        sizes = received.tolist()
        dist.all_to_all_single(out, data, sizes, sent.tolist(), group=self.group)
        return [pickle.loads(memoryview(part.numpy())) for part in out.split(sizes)]

    def allreduce(self, number: int) -> int:
        """Return the sum over ranks, on all."""
        total = torch.tensor(number)
        dist.all_reduce(total, group=self.group)
        return int(total)

    def Ibarrier(self) -> "_Request":  # noqa: N802  MPI's name
        """Begin to wait for all ranks."""
        return _Request(dist.barrier(self.group, async_op=True))

    def Abort(self, code: int) -> None:  # noqa: N802  MPI's name
        """End this process at once; the others find it gone."""
        os._exit(code)

    def explain(self, error: BaseException) -> BaseException:
        """Return who is gone, where that is what an error comes from."""
        is_broken = isinstance(error, RuntimeError) and any(w in str(error) for w in _BROKEN)
        lost = self.beats.lost() if is_broken or isinstance(error, dist.DistError) else []
        return self.beats.tell(lost, error) if lost else error


@dataclass
class _Request:
    work: dist.Work

    def Test(self) -> bool:  # noqa: N802  MPI's name
        if not self.work.is_completed():
            return False
        self.work.wait()  # raises what broke it
        return True


class Beats:
    """Each rank counts up in the store they met by, from a thread: who stops is gone.

    Intervals are counted, not timed, so that a job that is suspended as a whole finds no one gone.

    Args:
        store: what they met by; the first rank's process, or torchrun, keeps it.
        ranks: this process among them.
    """

    def __init__(self, store: dist.Store, ranks: Ranks):
        self.rank, self.world = ranks.rank, ranks.world
        # A client waits for its answer: one for the thread that beats, one for questions.
        self._beating, self._asking = store.clone(), store.clone()
        self._names = [f"dwf-beat-{rank}" for rank in range(self.world)]
        places = [f"dwf-place-{rank}" for rank in range(self.world)]
        store.set(places[self.rank], f"process {os.getpid()} on {platform.node()}")
        store.set(self._names[self.rank], "0")
        store.wait(self._names)
        self.places = [place.decode() for place in store.multi_get(places)]
        self._missed = [0] * self.world
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._beat, self._watch)]
        for thread in self._threads:
            thread.start()
        atexit.register(self._stop)

    def lost(self) -> list[int]:
        """Return the ranks that do not beat during some intervals; takes as long."""
        try:
            before = self._asking.multi_get(self._names)
            time.sleep(_SUSPECT * _SECONDS_BETWEEN_BEATS)
            after = self._asking.multi_get(self._names)
        except RuntimeError:  # who keeps the store is gone
            return [0]
        others = [rank for rank in range(self.world) if rank != self.rank]
        return [rank for rank in others if before[rank] == after[rank]]

    def tell(self, lost: list[int], error: BaseException | None = None) -> WorkFailed:
        """Return the error that names lost ranks."""
        who = ", ".join(f"rank {rank} of {self.world} ({self.places[rank]})" for rank in lost)
        first = str(error).splitlines()[0] if error else ""
        reason = re.sub(r"^\[.*?\] |\. .*$", "", first)  # without gloo's source line and advice
        reason = f" ({reason})" if reason else ""
        return WorkFailed(
            f"{who} is gone{reason}: it was killed, its node failed, or it stopped with an error "
            "that stands in its own output. Give the same command again to go on from the newest "
            "checkpoint"
        )

    def _beat(self) -> None:
        # The first hears all, the others hear the first: N answers an interval, not N^2.
        heard = range(self.world) if self.rank == 0 else range(1)
        number, before = 0, {}
        with suppress(RuntimeError):  # the store is gone: `_watch` counts the silence
            while not self._ended.wait(_SECONDS_BETWEEN_BEATS):
                number += 1
                self._beating.set(self._names[self.rank], str(number))
                beats = self._beating.multi_get([self._names[rank] for rank in heard])
                for rank, beat in zip(heard, beats, strict=True):
                    if beat == _ENDED or beat != before.get(rank):
                        self._missed[rank] = 0
                    before[rank] = beat

    def _watch(self) -> None:
        """End this process when another, or the store, has been silent for long."""
        while not self._ended.wait(_SECONDS_BETWEEN_BEATS):
            self._missed = [count + 1 for count in self._missed]
            heard = range(self.world) if self.rank == 0 else range(1)
            lost = [r for r in heard if r != self.rank and self._missed[r] > _MOST_MISSED]
            if lost:
                print(f"rank {self.rank}: error: {self.tell(lost)}", file=sys.stderr, flush=True)
                os._exit(1)

    def _stop(self) -> None:
        """Leave in peace: this rank is not missed."""
        self._ended.set()
        for thread in self._threads:  # none may be in the store's code when Python ends
            thread.join(_SECONDS_BETWEEN_BEATS)
        with suppress(RuntimeError):
            self._asking.set(self._names[self.rank], _ENDED)
