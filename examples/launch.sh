# Sourced by the scripts of the papers' experiments: data, scale and how ranks are started.
#
#   DATA=corpus TOKENIZER=tokenizer.json bash examples/compress/300m.sh     the papers' settings, on all GPUs here
#   SCALE=tiny bash examples/compress/300m.sh                               the same steps, really run, in two minutes
#   bash examples/compress/300m.sh --dry-run                                print what would run
#
# NODES, NODE_RANK, MASTER_ADDR, MASTER_PORT and GPUS describe a cluster (examples/cluster/). What follows the script's
# name is passed on to pretrain_distill.py and wins over what the script says.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
SCALE=${SCALE:-paper}
RUNS=${RUNS:-runs}
case $SCALE in
  paper | tiny) ;;
  *) echo "SCALE=$SCALE is not known; it is paper or tiny" >&2; exit 2 ;;
esac

# Text for SCALE=tiny: the standard library's, tokenised once and shared by all scripts.
tiny_data() {
  local out=$RUNS/tiny-data
  if [[ ! -e $out/corpus.idx ]]; then
    mkdir -p "$out"
    python tools/gather_text.py --output "$out/text.jsonl"
    python tools/train_tokenizer.py --input "$out/text.jsonl" --vocab-size 1024 --output "$out/tokenizer.json"
    python tools/preprocess_data.py --input "$out/text.jsonl" --tokenizer "$out/tokenizer.json" --output-prefix "$out/corpus"
  fi
  DATA=$out/corpus TOKENIZER=$out/tokenizer.json
}

if [[ $SCALE == tiny ]]; then
  tiny_data
  # The papers' depth, so that every layout and schedule means the same, at a width that a laptop likes.
  TINY_MODEL=(--hidden-size 64 --num-attention-heads 1 --max-position-embeddings 128)
  TINY_DATA=(--seq-length 128 --micro-batch-size 8 --global-batch-size 8 --split 97,3,0)
  TINY_HABITS=(--log-interval 10 --eval-interval 1000 --eval-iters 8 --save-interval 1000)
elif [[ -z ${DATA:-} ]]; then
  if [[ " $* " == *" --dry-run "* ]]; then
    DATA=""
  else
    echo "DATA is not set: give the prefix of a corpus that tools/preprocess_data.py made, such as DATA=c4/train" >&2
    exit 2
  fi
fi
CORPUS_FLAGS=(${DATA:+--data-path "$DATA"} ${TOKENIZER:+--tokenizer "$TOKENIZER"})

# train FLAGS...: check the flags in one process, which ends with one sentence and exit code 2 if they are wrong, then
# start the ranks.
train() {
  local gpus=${GPUS:-$(nvidia-smi -L 2> /dev/null | wc -l)} nodes=${NODES:-1}
  local ranks=$((gpus > 0 ? gpus : 1))
  if [[ " $* " == *" --dry-run "* ]]; then
    echo "+ torchrun --nnodes $nodes --nproc-per-node $ranks pretrain_distill.py $*"
    WORLD_SIZE=$((nodes * ranks)) python pretrain_distill.py "$@"
    return
  fi
  WORLD_SIZE=$((nodes * ranks)) python pretrain_distill.py "$@" --dry-run > /dev/null
  if ((nodes * ranks == 1)); then
    python pretrain_distill.py "$@"
  elif ((nodes == 1)); then
    torchrun --standalone --nproc-per-node "$ranks" pretrain_distill.py "$@"
  else
    torchrun --nnodes "$nodes" --node-rank "${NODE_RANK:?}" --nproc-per-node "$ranks" --max-restarts "${RESTARTS:-3}" \
      --rdzv-backend c10d --rdzv-endpoint "${MASTER_ADDR:?}:${MASTER_PORT:-29500}" --rdzv-id "${JOB_ID:-distill}" \
      pretrain_distill.py "$@"
  fi
}
