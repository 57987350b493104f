# Ray's part of one node, until it is told to end: run on every node by ray.sh.
# With the word `address`: print where the others reach the head node.
set -euo pipefail

# By the address that Slurm itself uses: a node has several, and not all lead to it.
address_of() {
    local name
    name=$(scontrol show node "$1" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
    getent ahostsv4 "$name" | awk 'NR == 1 { print $1 }'
}

if [ "${1:-}" = address ]; then
    address_of "$RAY_HEAD"
    exit
fi
if [ "$SLURMD_NODENAME" = "$RAY_HEAD" ]; then
    role=(--head --port="$RAY_PORT" --ray-client-server-port=$((RAY_PORT + 1))
        --include-dashboard=false)
else
    role=(--address="$RAY_ADDRESS")
fi
# A worker node joins by --address alone.
unset RAY_ADDRESS
# Ray opens its folder to all, so it lies in one that is this user's alone.
folder=$(mktemp -d "$RAY_FOLDER.XXXXXX")
ray start --block "${role[@]}" \
    --node-ip-address="$(address_of "$SLURMD_NODENAME")" \
    --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    --temp-dir="$folder/r" --object-store-memory=268435456 \
    --dashboard-agent-listen-port=$((RAY_PORT + 2)) \
    --min-worker-port=0 --max-worker-port=0 &
ray=$!
# `ray start` itself takes seconds to end its processes one by one; with it they all die at once.
trap 'kill -KILL "$ray" 2> /dev/null || true' USR1 TERM
wait "$ray" || wait "$ray" 2> /dev/null || true # a signal ends the first
trap '' USR1 TERM
sleep 1
rm -rf "$folder"
