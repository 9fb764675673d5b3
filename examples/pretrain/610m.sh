#!/usr/bin/env bash
# Pretrain palm-610m as the papers do (arXiv:2305.14864, Table 1): Lion, batch of 2,097,152 tokens, 160B tokens of C4.
# The half of palm-1.1b, from scratch.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

if [[ $SCALE == tiny ]]; then
  train "${TINY_MODEL[@]}" --num-layers 12 "${CORPUS_FLAGS[@]}" "${TINY_DATA[@]}" "${TINY_HABITS[@]}" \
    --train-iters 100 --lr 2e-3 --save "$RUNS/tiny/pretrain-610m" "$@"
  exit
fi

MODEL=(--model "palm-610m${FLAVOUR:-}")          # FLAVOUR=-paper for biases and full-width QK-LayerNorm
BATCH=(--seq-length 2048 --global-batch-size 1024 --micro-batch-size "${MICRO_BATCH:-16}")
SCHEDULE=(--train-tokens "${TOKENS:-160B}" --nominal-tokens --lr-warmup-tokens 4B)
OPTIMIZER=(--optimizer lion --lr 2.5e-4 --weight-decay 1e-4 --beta1 0.9 --beta2 0.95 --clip-grad 1.0)
RUN=(--save "$RUNS/palm-610m${FLAVOUR:-}" --save-interval 1000 --eval-interval 1000 --eval-iters 5 --seed 6198)

train "${MODEL[@]}" "${CORPUS_FLAGS[@]}" "${BATCH[@]}" "${SCHEDULE[@]}" "${OPTIMIZER[@]}" "${RUN[@]}" "$@"
