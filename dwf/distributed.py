"""Ranks that work together through torch.distributed: those that train on several GPUs or nodes.

After `begin` the ranks that srun, torchrun or mpiexec started are those of `ranks.world()`.

A rank that is killed does not end the others: they would wait for it. So each rank beats, and one
that falls silent is named by the others, which then end too.
"""

import atexit
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from dwf import meeting
from dwf.errors import WorkFailed, WrongLaunch
from dwf.messages import pack, unpack
from dwf.ranks import SRUN, TORCHRUN, Ranks, find_ranks, use

T = TypeVar("T")

# Until all ranks have met: their imports may take minutes on a busy file system.
_MEETING = timedelta(minutes=10)
# A collective of training; and one in which ranks wait for the first to finish long work.
_STEP, _PATIENT = timedelta(minutes=30), timedelta(days=30)
_SECONDS_BETWEEN_BEATS = 2.0
# Beats that a rank may miss before the others give up; and before it is named for a broken line.
_MOST_MISSED, _SUSPECT = 45, 4
_LOOPBACK = "127.0.0.1"
_ELSEWHERE = "192.0.2.1"  # of no machine (RFC 5737): what leads there leads out of this one
# In these launchers say how many ranks they started on this machine.
_RANKS_HERE = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
_ENDED = b"ended"
# What a lost rank looks like to the others: gloo has no class of error for it.
_BROKEN = ("Connection closed", "Connection reset", "Broken pipe", "Timed out", "gloo", "NCCL")


def begin(folder: Path) -> Ranks:
    """Let the ranks of this program meet; one process alone needs no meeting.

    They meet by a file beside a folder, see `meeting`. Where neither MASTER_ADDR nor a launcher
    says at which address, it is that of Slurm's first node; ranks of one machine meet within it.

    Args:
        folder: of the run, on a file system that all ranks share.

    Returns:
        This process among them.

    Raises:
        WrongLaunch: not all ranks came, or it cannot be known where to meet.
    """
    ranks = find_ranks()
    if ranks.world == 1 or dist.is_initialized():
        return ranks
    os.environ.update(RANK=str(ranks.rank), WORLD_SIZE=str(ranks.world))
    file = meeting.file_of(folder)  # by what the launcher says, before it is added to
    _find_place(ranks)
    _take_device(ranks)
    store = _meet(ranks, file)
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


def _meet(ranks: Ranks, file: Path) -> dist.Store:
    address, port = os.environ["MASTER_ADDR"], _asked_port(ranks)
    try:
        if ranks.is_first:
            address = _own_address(address, ranks)
            store = meeting.open_store(
                file, address, port=port, world=ranks.world, timeout=_MEETING
            )
        else:
            store = meeting.join_store(file, ranks.rank, timeout=_MEETING)
            address = store.underlying_store.host
        _take_interface(ranks, address)
        dist.init_process_group(
            _backend(), store=store, rank=ranks.rank, world_size=ranks.world, timeout=_STEP
        )
    except (dist.DistError, RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise WrongLaunch(
            f"rank {ranks.rank} of {ranks.world} met no others at {address}:{port} ({reason}): see "
            "that all were started, that they share a file system, that nodes reach each other "
            "there, and that the address is the first's (set MASTER_ADDR, and GLOO_SOCKET_IFNAME "
            "or NCCL_SOCKET_IFNAME for the network to use)"
        ) from error
    atexit.register(_leave_group)
    return store


def _asked_port(ranks: Ranks) -> int:
    """The port that the user asks for; 0, any that is free. Torchrun's is taken by its own."""
    return 0 if ranks.launcher == TORCHRUN else int(os.environ.get("MASTER_PORT", 0))


def _leave_group() -> None:
    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _find_place(ranks: Ranks) -> None:
    """Set MASTER_ADDR where nobody has; on one machine keep all that listens within it."""
    nodes = _nodes()
    if ranks.launcher == TORCHRUN and _is_on_one_machine(ranks):
        os.environ["MASTER_ADDR"] = _LOOPBACK
    if "MASTER_ADDR" not in os.environ:
        if nodes is None:
            raise WrongLaunch(
                f"{ranks.launcher} started rank {ranks.rank} of {ranks.world}, but not where they "
                "meet: set MASTER_ADDR to the address of the first rank's machine (torchrun and "
                "srun need none)"
            )
        first = _LOOPBACK if _is_on_one_machine(ranks) else _node_address(nodes, 0)
        os.environ["MASTER_ADDR"] = first
    if os.environ["MASTER_ADDR"] in (_LOOPBACK, "localhost") and sys.platform == "linux":
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")


def _is_on_one_machine(ranks: Ranks) -> bool:
    """Whether the launcher says that all ranks are on this machine."""
    is_one_node = ranks.launcher == SRUN and os.environ.get("SLURM_STEP_NUM_NODES") == "1"
    return is_one_node or any(os.environ.get(name) == str(ranks.world) for name in _RANKS_HERE)


def _own_address(address: str, ranks: Ranks) -> str:
    """Return where the first rank listens: the others reach it there, whatever its name is here."""
    if _is_on_one_machine(ranks):
        return address
    nodes, other = _nodes(), _ELSEWHERE
    if nodes is not None and meeting.leads_back(address):
        other = _node_address(nodes, -1)
    return meeting.outward_address(address, other)


def _take_interface(ranks: Ranks, first: str) -> None:
    """Let gloo listen where other machines reach this rank; by itself it takes the host's name.

    Args:
        ranks: this process.
        first: address of the first rank.
    """
    name = socket.gethostname()
    if not _is_on_one_machine(ranks) and meeting.leads_back(name):
        found = meeting.interface_of(meeting.outward_address(name, first))
        if found is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", found)


def _nodes() -> str | None:
    """Return the nodes of this step or job, as Slurm lists them."""
    return os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST")


def _node_address(nodes: str, place: int) -> str:
    """Return the address that Slurm itself reaches one of some nodes by; nodes have several."""
    name = _scontrol("hostnames", nodes).split()[place]
    found = [w for w in _scontrol("node", name).split() if w.startswith("NodeAddr=")]
    return found[0].removeprefix("NodeAddr=") if found else name


def _scontrol(*words: str) -> str:
    command = ["scontrol", "show", *words]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=True,
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
        own, sizes = self._packed(value)
        parts = [torch.empty(max(sizes), dtype=torch.uint8) for _ in sizes]
        dist.all_gather(parts, _padded(own, max(sizes)), self.group)
        return _unpacked(parts, sizes)

    def gather(self, value: T) -> list[T] | None:
        """Return every rank's value on the first, None on the others."""
        own, sizes = self._packed(value)
        parts = None
        if self.rank == 0:
            parts = [torch.empty(max(sizes), dtype=torch.uint8) for _ in sizes]
        dist.gather(_padded(own, max(sizes)), parts, dst=0, group=self.group)
        return _unpacked(parts, sizes) if parts else None

    def bcast(self, value: T) -> T:
        """Return the first rank's value on all."""
        whole = _as_tensor(pack(value)) if self.rank == 0 else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor(len(whole))
        dist.broadcast(size, src=0, group=self.group)
        if self.rank:
            whole = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(whole, src=0, group=self.group)
        return unpack(memoryview(whole.numpy())) if self.rank else value

    def alltoall(self, values: list[T]) -> list[T]:
        """Send value r to rank r; return what the ranks sent to this one, in order."""
        packed = [pack(value) for value in values]
        sent = torch.tensor([len(each) for each in packed])
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        data = _as_tensor(b"".join(packed))
        out = torch.empty(int(received.sum()), dtype=torch.uint8)
        sizes = received.tolist()
        dist.all_to_all_single(out, data, sizes, sent.tolist(), group=self.group)
        return _unpacked(out.split(sizes), sizes)

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

    def _packed(self, value: object) -> tuple[torch.Tensor, list[int]]:
        """Return this rank's message, and the sizes of all."""
        own = _as_tensor(pack(value))
        sizes = [torch.empty(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(own)]), self.group)
        return own, [int(size) for size in sizes]

    def explain(self, error: BaseException) -> BaseException:
        """Return who is gone, where that is what an error comes from."""
        is_broken = isinstance(error, RuntimeError) and any(w in str(error) for w in _BROKEN)
        lost = self.beats.lost() if is_broken or isinstance(error, dist.DistError) else []
        return self.beats.tell(lost, error) if lost else error


def _as_tensor(message: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(message), dtype=torch.uint8)


def _padded(own: torch.Tensor, size: int) -> torch.Tensor:
    return torch.nn.functional.pad(own, (0, size - len(own)))


def _unpacked(parts: Sequence[torch.Tensor], sizes: Sequence[int]) -> list:
    whole = zip(parts, sizes, strict=True)
    return [unpack(memoryview(part[:size].numpy())) for part, size in whole]


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
        store: what they met by; the first rank's process keeps it.
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
