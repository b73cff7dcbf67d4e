#!/usr/bin/env bash
# Trains on several GPUs: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# On several machines, the same call on each with NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
set -eu
[ $# -ge 2 ] || { sed -n 2,3p "$0" >&2; exit 2; }
CONFIG=$1
GPUS=$2
shift 2

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
