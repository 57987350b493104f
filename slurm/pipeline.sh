#!/bin/bash
# The whole way on one node: zoo, alignment, generators, samples, report.
#
#   sbatch slurm/pipeline.sh --config configs/pipeline/mnist_mlp.yaml
#
#SBATCH --job-name=dwf-pipeline
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
set -euo pipefail
source slurm/job.sh

run python -m dwf pipeline "${arguments[@]}"
