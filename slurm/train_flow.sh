#!/bin/bash
# Train a flow, or another density that trains, on the ranks of one job: slurm/generator.sh by another name.
#
#   sbatch --nodes 4 slurm/train_flow.sh --config configs/generator/token_flow_resnet20_narrow.yaml
#
#SBATCH --job-name=dwf-flow
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
source slurm/generator.sh
