"""Start real MPI ranks of a Python program, for the tests marked `mpi`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MPIEXEC = Path(sys.executable).parent / "mpiexec"  # of the package mpich


def run_ranks(
    num: int, *words: object, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess:
    """Run `python WORDS` as ranks on this machine; a program's text comes after `-c`."""
    return subprocess.run(
        [MPIEXEC, "-n", str(num), sys.executable, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
