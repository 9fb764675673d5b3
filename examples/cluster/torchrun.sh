#!/usr/bin/env bash
# The same command on every node; only NODE_RANK differs.
#
#   NODES=2 NODE_RANK=0 MASTER_ADDR=node0 bash examples/cluster/torchrun.sh examples/compress/1.1b.sh
#   NODES=2 NODE_RANK=1 MASTER_ADDR=node0 bash examples/cluster/torchrun.sh examples/compress/1.1b.sh
#
# The run folder (RUNS) and the corpus (DATA) must be on a file system that all nodes share. A rank that dies ends the
# attempt on all nodes; torchrun starts it again, RESTARTS times, and training goes on from the newest checkpoint.
set -euo pipefail
: "${NODES:?how many nodes}" "${NODE_RANK:?which of them this is, from 0}" "${MASTER_ADDR:?name or address of node 0}"

export NODES NODE_RANK MASTER_ADDR
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
export TORCH_NCCL_ASYNC_ERROR_HANDLING=1   # a dead peer ends the others instead of leaving them waiting
# After SIGTERM ranks finish their step and save: as long as the queue gives them (slurm.sbatch), not torchrun's 30 s.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}
exec bash "${1:?the script to run, such as examples/compress/1.1b.sh}" "${@:2}"
