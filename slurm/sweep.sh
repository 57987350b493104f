#!/bin/bash
# A sweep with Ray Tune over the nodes of one job.
#
#   sbatch --nodes 4 slurm/sweep.sh --config configs/sweep/mnist_hidden_dims_x_modes.yaml
#
#SBATCH --job-name=dwf-sweep
#SBATCH --ntasks-per-node=1
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
set -euo pipefail
source slurm/job.sh
source slurm/ray.sh

run python -m dwf sweep "${arguments[@]}"
