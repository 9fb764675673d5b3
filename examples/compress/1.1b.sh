#!/usr/bin/env bash
# Compress palm-1.1b by half without a teacher, as the papers do (arXiv:2305.14864v2): 12 of 24 layers leave by input
# after a seed phase of 1B tokens, 20B tokens in all, Lion at a tenth of the pretraining rate. 33 h on 8 x A100-80GB there.
# Needs the run of examples/pretrain/1.1b.sh, or BASE=RUN.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

LAYOUT=${LAYOUT:-input}        # where: max-gap input output both middle, or alt-... with fewer layers
REMOVE=${REMOVE:-12}             # how much
GAP=${GAP:-0}                    # when: 0 100M 500M 1B

if [[ $SCALE == tiny ]]; then
  # 500 + 9,500 steps of the papers become 4 + 76; a gap of 100M becomes one step.
  case $GAP in 0) gap=0 ;; 100M) gap=1 ;; 500M) gap=2 ;; 1B) gap=4 ;; *) echo "GAP=$GAP is not known" >&2; exit 2 ;; esac
  [[ -e $RUNS/tiny/pretrain-1.1b/result.json ]] || bash examples/pretrain/1.1b.sh
  train "${CORPUS_FLAGS[@]}" "${TINY_DATA[@]}" "${TINY_HABITS[@]}" --load "$RUNS/tiny/pretrain-1.1b" \
    --pruning-layout "$LAYOUT" --pruning-num-layers "$REMOVE" --pruning-seed-tokens 4096 \
    --pruning-gap-tokens $((gap * 1024)) --train-iters 80 --lr 1e-3 \
    --save "$RUNS/tiny/compress-1.1b-$LAYOUT-$REMOVE-$GAP" "$@"
  exit
fi

BASE=${BASE:-$RUNS/palm-1.1b${FLAVOUR:-}}
BATCH=(--seq-length 2048 --global-batch-size 1024 --micro-batch-size "${MICRO_BATCH:-8}")
SCHEDULE=(--train-tokens "${TOKENS:-20B}" --nominal-tokens --lr-warmup-tokens 800M)
PRUNING=(--pruning-layout "$LAYOUT" --pruning-num-layers "$REMOVE" --pruning-seed-tokens 1B --pruning-gap-tokens "$GAP")
OPTIMIZER=(--optimizer lion --lr 2e-5 --weight-decay 1e-4 --beta1 0.9 --beta2 0.95 --clip-grad 1.0)
RUN=(--save "$RUNS/palm-1.1b${FLAVOUR:-}-$LAYOUT-$REMOVE-$GAP" --save-interval 500 --eval-interval 500 --eval-iters 5)
START=(--load "$BASE")
if [[ " $* " == *" --dry-run "* && ! -e $BASE ]]; then
  START=(--model "palm-1.1b${FLAVOUR:-}")   # nothing to load yet: show the same run from fresh weights
fi

train "${START[@]}" "${CORPUS_FLAGS[@]}" "${BATCH[@]}" "${SCHEDULE[@]}" "${PRUNING[@]}" "${OPTIMIZER[@]}" "${RUN[@]}" \
  --seed 6199 "$@"
