#!/usr/bin/env bash
# Evaluates on several GPUs: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# On several machines, the same call on each with NNODES (how many), NODE_RANK (from 0), MASTER_ADDR (of number 0) and,
# where 29500 is taken, PORT in the environment.
set -eu
[ $# -ge 3 ] || { sed -n 2,4p "$0" >&2; exit 2; }
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
shift 3
if [ "${NNODES:-1}" -gt 1 ]; then
    : "${NODE_RANK:?number this machine for NNODES=$NNODES machines, from 0}"
    : "${MASTER_ADDR:?name machine 0 for NNODES=$NNODES machines}"
fi

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
