# What the jobs of this folder have in common; sourced by each with its arguments.
: "${SLURM_JOB_ID:?give this file to sbatch, as slurm/site.sh tells}"
source slurm/site.sh
arguments=("$@")
[[ " $* " == *" --root"* ]] || arguments+=(--root "$RESULTS")
# From Slurm 22.05 on srun no longer takes the job's --cpus-per-task by itself.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
[ -z "${DWF_SETUP:-}" ] || eval "$DWF_SETUP" # what a launch says of its site
echo "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, begun ${SLURM_RESTART_COUNT:-0} times before"

# run COMMAND...: the job's command. Before the time limit, or when a job of more weight takes the
# nodes, Slurm sends USR2 (see --signal): the command saves and exits with 130, and the job goes
# back into the queue. It goes on from there, as every stage does.
run() {
    local code child asked=
    "$@" &
    child=$!
    trap 'asked=yes; kill -USR2 "$child" 2> /dev/null || true' USR2
    trap 'kill -TERM "$child" 2> /dev/null || true' TERM
    while true; do # a trap ends `wait` before the child's end
        code=0
        wait "$child" || code=$?
        kill -0 "$child" 2> /dev/null || break
    done
    # 130: saved; 128 + signal: it came before there was anything to save.
    if [[ $asked && " 130 140 143 " == *" $code "* ]]; then
        requeue
    fi
    return "$code"
}

requeue() {
    if ((${SLURM_RESTART_COUNT:-0} >= MOST_RESTARTS)); then
        echo "stopped after $MOST_RESTARTS restarts: submit it again if it came further each time"
    else
        echo "saved; job $SLURM_JOB_ID goes back into the queue"
        scontrol requeue "$SLURM_JOB_ID" || true # Slurm may have done so itself
        sleep 60 # until Slurm ends this attempt
    fi
}
