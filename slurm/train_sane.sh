#!/bin/bash
# Train SANE, the token autoencoder, on the ranks of one job: slurm/generator.sh by another name.
#
#   sbatch --nodes 4 slurm/train_sane.sh --config configs/generator/sane_cnn_mnist.yaml
#
#SBATCH --job-name=dwf-sane
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
source slurm/generator.sh
