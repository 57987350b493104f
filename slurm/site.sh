# Your site: edit what stands below the EDIT marks once; no other file here needs editing.
#
#   source slurm/site.sh      # once a shell, in dwf's folder: sbatch reads the SBATCH_* variables
#   sbatch --nodes 4 slurm/zoo.sh --config configs/zoo/mnist_mlp_cluster.yaml
#
# Flags before the script's name are sbatch's, and win over this file; those after it are dwf's.
# Every job reads this file again on its first node.

# --- EDIT: what to ask of Slurm; what is not set is the site's default ---------------------------
# export SBATCH_PARTITION=batch
# export SBATCH_ACCOUNT=project
# export SBATCH_QOS=normal
# export SBATCH_CONSTRAINT=skylake
# export SBATCH_GPUS_PER_NODE=4
export SBATCH_TIMELIMIT=4:00:00     # more than 10 minutes; a job that needs longer is requeued
export SBATCH_EXCLUSIVE=exclusive   # whole nodes; where nodes are shared: sbatch --cpus-per-task

# --- EDIT: modules, conda: `python` and `ray` are then those of dwf's environment ----------------
# module load Python CUDA
[ ! -f .venv/bin/activate ] || source .venv/bin/activate

# --- EDIT: places --------------------------------------------------------------------------------
RESULTS=.                           # zoos/ runs/ reports/; a file system that all nodes share
# export DWF_DATA=/scratch/dwf-data # datasets, where the home folder is small
NODE_FOLDER=/tmp                    # each node's own, at most 20 letters: Ray's sockets and logs

# --- EDIT: habits --------------------------------------------------------------------------------
MPI_KIND=pmi2                       # of `srun --mpi=list`: pmi2 for MPICH, pmix for Open MPI
MOST_RESTARTS=50                    # a job that was requeued so often is left to you
