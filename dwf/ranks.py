"""Which of how many processes this one is: from torchrun, srun, MPI, or nothing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

# (rank, world, local rank) as each launcher names them; torchrun first, since it may run in a job.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)


@dataclass(frozen=True)
class Ranks:
    """This process among those of its program: `rank` of `world`, `local` on its node."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes what is written once."""
        return self.rank == 0


def find_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Read rank and world size from the environment; 0 of 1 where no launcher set them."""
    for rank, world, local in _LAUNCHERS:
        if rank in environment and world in environment:
            return Ranks(
                int(environment[rank]), int(environment[world]), int(environment.get(local, 0))
            )
    return Ranks()
