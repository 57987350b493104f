#!/bin/bash
# Align a zoo with MPI ranks, each of which takes parts of it; any number gives the same bytes.
#
#   sbatch --nodes 4 --ntasks-per-node 16 slurm/align.sh --zoo mnist_mlp_cluster
#
#SBATCH --job-name=dwf-align
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
set -euo pipefail
source slurm/job.sh

export OMP_NUM_THREADS=$SRUN_CPUS_PER_TASK
run srun --mpi="$MPI_KIND" --kill-on-bad-exit=1 python -m dwf align "${arguments[@]}"
