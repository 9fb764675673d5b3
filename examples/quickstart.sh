#!/usr/bin/env bash
# The main job, small: pretrain a language model, compress it by half without a teacher, and see what was lost.
#
#   bash examples/quickstart.sh                      text that every Python installation carries
#   CORPUS=my.jsonl bash examples/quickstart.sh      your text: one JSON object a line, with a field "text"
#
# Takes about 6 minutes on 2 CPU cores after installation. Stopped, it goes on where it was. Leaves in runs/quickstart:
# report.html, loss_curves.png, summary.json, the runs themselves, and the compressed model for transformers in exported/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

OUT=${OUT:-runs/quickstart}

# What OUT was made from is kept there once it has been read: a typo must not claim the folder.
if [[ -n ${CORPUS:-} ]]; then
  text=$CORPUS
  if [[ ! -f $text || ! -r $text ]]; then
    echo "CORPUS=$text is not a file that can be read; give JSON lines with a field \"text\"" >&2
    exit 2
  fi
  source=$(cksum < "$text")
else
  text=$OUT/text.jsonl
  source=$text
fi
if [[ -s $OUT/corpus ]] && [[ $(cat "$OUT/corpus") != "$text" || (-s $OUT/corpus.cksum && $(cat "$OUT/corpus.cksum") != "$source") ]]; then
  echo "$OUT was made from $(cat "$OUT/corpus"), not from $text as it is now; give another folder with OUT=..." >&2
  exit 2
fi
mkdir -p "$OUT"
if [[ -z ${CORPUS:-} && ! -e $text ]]; then
  echo "gathering text from Python's standard library"
  python tools/gather_text.py --output "$text"
fi
if [[ ! -e $OUT/tokenizer.json ]]; then
  echo "training a tokenizer"
  python tools/train_tokenizer.py --input "$text" --vocab-size 2048 --output "$OUT/tokenizer.json"
fi
echo "$text" > "$OUT/corpus"
echo "$source" > "$OUT/corpus.cksum"
if [[ ! -e $OUT/corpus.idx ]]; then
  echo "writing tokens"
  python tools/preprocess_data.py --input "$text" --tokenizer "$OUT/tokenizer.json" --output-prefix "$OUT/corpus"
fi

MODEL=(--hidden-size 128 --num-attention-heads 2 --max-position-embeddings 256)
DATA=(--data-path "$OUT/corpus" --tokenizer "$OUT/tokenizer.json" --split 97,3,0 --seq-length 256)
BATCH=(--micro-batch-size 16 --global-batch-size 16)
HABITS=(--log-interval 20 --eval-interval 50 --eval-iters 8 --save-interval 250)
BASE_ITERS=${BASE_ITERS:-500}
HALF_ITERS=${HALF_ITERS:-250}

# train FOLDER FLAGS...: a run to its end. One that was asked to stop has saved, and ends the script, which goes on there.
train() {
  python pretrain_distill.py "${@:2}" --save "$1"
  [[ -e $1/result.json ]] || exit 130
}
trap 'exit 130' INT TERM

echo "1/3 pretraining the base model"
train "$OUT/base" "${MODEL[@]}" --num-layers 8 "${DATA[@]}" "${BATCH[@]}" "${HABITS[@]}" \
  --train-iters "$BASE_ITERS" --lr 1e-3

echo "2/3 compressing it: half of its layers leave, training goes on"
train "$OUT/compressed" "${DATA[@]}" "${BATCH[@]}" "${HABITS[@]}" \
  --load "$OUT/base" --pruning-layout max-gap --pruning-num-layers 4 \
  --train-iters "$HALF_ITERS" --lr 5e-4 --seed 4321

echo "3/3 training a model of the same size from scratch on the same tokens"
train "$OUT/scratch" "${MODEL[@]}" --num-layers 4 "${DATA[@]}" "${BATCH[@]}" "${HABITS[@]}" \
  --train-iters "$HALF_ITERS" --lr 1e-3 --seed 4321

python tools/report.py --base "$OUT/base" --compressed "$OUT/compressed" --scratch "$OUT/scratch" --output "$OUT"

echo "exporting the compressed model for Hugging Face transformers"
python tools/convert_checkpoint.py to-hf "$OUT/compressed" "$OUT/exported"
python tools/generate.py "$OUT/exported" --prompt "Return the" --max-new-tokens 24 --seed 1
