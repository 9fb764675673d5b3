#!/usr/bin/env bash
# Teacher-free compression, the three ways of distillation, and the same size from scratch, side by side at the size of the
# quickstart, whose base and text it uses: same data, same tokens, same layers, SEEDS (1 2 3) each. About half an hour on 2
# CPU cores; stopped, it goes on where it was. Prints the table of docs/reproduction.md.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"

OUT=${OUT:-runs/quickstart}
SEEDS=${SEEDS:-1 2 3}
ITERS=${ITERS:-250}
if [[ ! -e $OUT/base/result.json ]]; then
  echo "$OUT/base is not there: run bash examples/quickstart.sh first" >&2
  exit 2
fi

DATA=(--data-path "$OUT/corpus" --tokenizer "$OUT/tokenizer.json" --split 97,3,0 --seq-length 256)
BATCH=(--micro-batch-size 16 --global-batch-size 16)
HABITS=(--log-interval 20 --eval-interval 50 --eval-iters 8 --save-interval 250 --train-iters "$ITERS")
HALF=(--load "$OUT/base" --pruning-layout max-gap --pruning-num-layers 4 --lr 5e-4)
TEACHER=(--teacher-placement colocated)
ALL=(vanilla hidden-states embedding-table attention-scores)

for seed in $SEEDS; do
  common=("${DATA[@]}" "${BATCH[@]}" "${HABITS[@]}" --seed "$seed")
  runs=$OUT/compare/seed$seed
  python pretrain_distill.py "${common[@]}" "${HALF[@]}" --save "$runs/teacher-free"
  python pretrain_distill.py "${common[@]}" "${HALF[@]}" "${TEACHER[@]}" --loss vanilla --save "$runs/vanilla"
  python pretrain_distill.py "${common[@]}" "${HALF[@]}" "${TEACHER[@]}" --loss vanilla minilm --save "$runs/minilm"
  python pretrain_distill.py "${common[@]}" "${HALF[@]}" "${TEACHER[@]}" --loss "${ALL[@]}" --save "$runs/homotopic"
  python pretrain_distill.py "${common[@]}" --hidden-size 128 --num-attention-heads 2 --max-position-embeddings 256 \
    --num-layers 4 --lr 1e-3 --save "$runs/scratch"
done
python tools/compare_runs.py "$OUT"/compare/seed*/{teacher-free,vanilla,minilm,homotopic,scratch}
