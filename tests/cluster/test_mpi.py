"""MPI ranks as a real Slurm starts them: by srun over nodes, in a batch script, in a step."""

import sys

import pytest

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from tests.align.test_stage import files_of, write_zoo
from tests.mpi import MPIEXEC, ROOT

pytestmark = pytest.mark.cluster

JOB = f"""#!/bin/bash
cd {ROOT}
export OMP_NUM_THREADS=1
align="{sys.executable} launch/align.py --zoo zoo --num-pairs 5 --root ROOT --name"
{sys.executable} -c "from dwf.ranks import find_ranks; print(find_ranks(), 'in the script')"
srun --mpi=pmi2 $align two-nodes
echo "srun: $?"
srun -N1 -n1 {MPIEXEC} -launcher fork -hosts localhost -n 2 $align in-a-step
echo "mpiexec: $?"
srun --mpi=none $align unconnected
echo "no MPI: $?"
"""


def test_srun_and_mpiexec_in_a_job_give_the_bytes_of_one_process(slurm, tmp_path):
    write_zoo(tmp_path)
    one = align_zoo(AlignConfig("zoo", num_pairs=5), tmp_path, name="one")
    (tmp_path / "job.sh").write_text(JOB.replace("ROOT", str(tmp_path)))
    where = ["-N2", "--ntasks-per-node=1", "--cpus-per-task=1", f"--output={tmp_path}/out"]
    slurm("sbatch", "--wait", *where, str(tmp_path / "job.sh"), timeout=240)
    out = (tmp_path / "out").read_text()
    assert "Ranks(rank=0, world=1, local=0, launcher='') in the script" in out
    assert "srun: 0" in out and "mpiexec: 0" in out and "no MPI: 2" in out, out
    assert out.count("18 networks, 5 pairs") == 2, out
    assert out.count("by srun as rank 1 of 2, but MPI (MPICH") == 1, out
    for name in ("two-nodes", "in-a-step"):
        assert files_of(tmp_path / "zoos" / name) == files_of(one.path)
    assert not (tmp_path / "zoos" / "unconnected").exists()
