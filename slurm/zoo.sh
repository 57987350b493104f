#!/bin/bash
# Train a zoo on the nodes of one job: worker processes on one node, Ray over several.
#
#   sbatch --nodes 4 slurm/zoo.sh --config configs/zoo/mnist_mlp_cluster.yaml
#
#SBATCH --job-name=dwf-zoo
#SBATCH --ntasks-per-node=1
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
set -euo pipefail
source slurm/job.sh

if [ "$SLURM_JOB_NUM_NODES" = 1 ]; then
    where=(--local --workers "$SLURM_CPUS_ON_NODE")
else
    source slurm/ray.sh
    where=(--backend ray)
fi
run python -m dwf zoo "${where[@]}" "${arguments[@]}"
