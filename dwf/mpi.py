"""MPI as ranks use it: messages of JSON and numbers, see `messages`.

The word-like methods of mpi4py (`allgather`, `bcast`) would send pickles; those of buffers do not.
"""

from typing import TYPE_CHECKING, TypeVar

from dwf.messages import pack, unpack

if TYPE_CHECKING:
    import numpy as np
    from mpi4py import MPI

T = TypeVar("T")


class MpiComm:
    """MPI's communicator as `World` asks for it: its own way to send values would be pickles.

    Args:
        comm: MPI's.
    """

    def __init__(self, comm: "MPI.Comm"):
        from mpi4py import MPI  # on use, as not every machine has an MPI

        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self._byte = MPI.BYTE

    def allgather(self, value: T) -> list[T]:
        """Return every rank's value, in order, on all."""
        own, sizes_R = self._packed(value)
        every = bytearray(int(sizes_R.sum()))
        self.comm.Allgatherv(own, [every, sizes_R, self._byte])
        return _cut(every, sizes_R)

    def gather(self, value: T) -> list[T] | None:
        """Return every rank's value on the first, None on the others."""
        own, sizes_R = self._packed(value)
        every = bytearray(int(sizes_R.sum()) if self.rank == 0 else 0)
        self.comm.Gatherv(own, [every, sizes_R, self._byte] if self.rank == 0 else None)
        return _cut(every, sizes_R) if self.rank == 0 else None

    def bcast(self, value: T) -> T:
        """Return the first rank's value on all."""
        import numpy as np

        own = bytearray(pack(value) if self.rank == 0 else b"")
        size = np.array([len(own)])
        self.comm.Bcast(size)
        whole = own if self.rank == 0 else bytearray(int(size[0]))
        self.comm.Bcast([whole, self._byte])
        return value if self.rank == 0 else unpack(whole)

    def alltoall(self, values: list[T]) -> list[T]:
        """Send value r to rank r; return what the ranks sent to this one, in order."""
        import numpy as np

        packed = [pack(value) for value in values]
        sent_R = np.array([len(one) for one in packed])
        got_R = np.empty_like(sent_R)
        self.comm.Alltoall(sent_R, got_R)
        every = bytearray(int(got_R.sum()))
        self.comm.Alltoallv([b"".join(packed), sent_R, self._byte], [every, got_R, self._byte])
        return _cut(every, got_R)

    def allreduce(self, number: int) -> int:
        """Return the sum over ranks, on all."""
        import numpy as np

        total = np.zeros(1, np.int64)
        self.comm.Allreduce(np.array([number]), total)
        return int(total[0])

    def Ibarrier(self) -> "MPI.Request":  # noqa: N802  MPI's name
        """Begin to wait for all ranks."""
        return self.comm.Ibarrier()

    def Abort(self, code: int) -> None:  # noqa: N802  MPI's name
        """End all ranks at once."""
        self.comm.Abort(code)

    def _packed(self, value: object) -> tuple[list, "np.ndarray"]:
        """Return this rank's message, and the sizes of all."""
        import numpy as np

        own = pack(value)
        sizes_R = np.empty(self.size, np.int64)
        self.comm.Allgather(np.array([len(own)]), sizes_R)
        return [own, self._byte], sizes_R


def _cut(every: bytearray, sizes_R: "np.ndarray") -> list:
    """Return the values of messages that lie one after the other."""
    ends_R = sizes_R.cumsum().tolist()
    starts_R = [0, *ends_R[:-1]]
    whole = memoryview(every)
    return [unpack(whole[start:end]) for start, end in zip(starts_R, ends_R, strict=True)]
