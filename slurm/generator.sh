#!/bin/bash
# Fit a generator, with all that trains in it, codec or density, over the ranks of this job: one
# for each GPU, or one a node without GPUs. `--ntasks-per-node R` before the script's name: R a node.
#
#   sbatch --nodes 4 slurm/generator.sh --config configs/generator/digits_neurons.yaml
#
#SBATCH --job-name=dwf-generator
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
set -euo pipefail
source slurm/job.sh

# Ranks need an engine that they share: DeepSpeed, unless flags or the configuration say ddp.
export DWF_RANKED=yes
ranks=${SLURM_NTASKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
cores=${SLURM_CPUS_PER_TASK:-$((SLURM_CPUS_ON_NODE / ranks))}
if ((cores < 1 || ranks * cores > SLURM_CPUS_ON_NODE)); then
    echo "error: this job has $SLURM_CPUS_ON_NODE cores of a node for $ranks ranks: give sbatch" \
        "--ntasks-per-node $ranks or --exclusive" >&2
    exit 2
fi
export SRUN_CPUS_PER_TASK=$cores OMP_NUM_THREADS=$cores

# Ranks are told apart and find each other by SLURM_* (see dwf/distributed.py): no MPI, no ssh, no
# torchrun. One that dies takes the others with it, and srun says which it was.
run srun --mpi=none --ntasks-per-node="$ranks" --ntasks=$((ranks * SLURM_JOB_NUM_NODES)) \
    --kill-on-bad-exit=1 python -u -m dwf generator "${arguments[@]}"
