# One Ray over the nodes of this job, as RAY_ADDRESS; sourced after job.sh. It ends with the job.
# Not `ray symmetric-run`, and no `ray stop`: both act on every Ray among the machine's processes.

# Its own ports, folder and token, so that jobs can share a node and none runs code in another's.
export RAY_PORT=$((20000 + 8 * (SLURM_JOB_ID % 1500)))
export RAY_FOLDER=$NODE_FOLDER/r$SLURM_JOB_ID # each node adds letters of its own
export RAY_HEAD=$SLURMD_NODENAME # a batch script runs on the first node of its job
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n')
RAY_ADDRESS=$(bash slurm/ray_node.sh address):$RAY_PORT
export RAY_AUTH_TOKEN RAY_ADDRESS

# Not --kill-on-bad-exit=1: a node that loses its Ray must not take the others' with it.
log=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *StdOut=//p')
log=${log%.out}-ray.out
SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE} \
    srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=0 \
    --output="$log" --open-mode=append --label bash slurm/ray_node.sh &
nodes=$!
trap 'kill -USR1 "$nodes" 2> /dev/null && wait "$nodes" || true' EXIT

SECONDS=0
until (exec 3<> "/dev/tcp/${RAY_ADDRESS/:/\/}") 2> /dev/null; do
    if ((SECONDS > 300)) || ! kill -0 "$nodes" 2> /dev/null; then
        echo "error: no Ray at $RAY_ADDRESS on $RAY_HEAD after $SECONDS s: see $log" >&2
        exit 1
    fi
    sleep 1
done
