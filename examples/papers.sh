# Sourced by the scripts of the papers' experiments (arXiv:2305.14864): models, schedules and methods, at every scale.
#
#   DATA=corpus TOKENIZER=tokenizer.json bash examples/main/300m.sh    the papers' settings, on all GPUs here
#   SCALE=tiny bash examples/main/300m.sh                              the same runs on 2 CPU cores, in minutes
#   SCALE=small bash examples/main/300m.sh                             the same on one GPU, meant for ten minutes
#   SCALE=laptop bash examples/main/300m.sh                            a base of 10 M parameters, hours on 2 CPU cores
#   bash examples/main/300m.sh --dry-run                               the commands, FLOPs, hours and disk
#
# Runs lie in OUT (RUNS/SCALE), and all scripts share them: finished ones are kept, a stopped one goes on where it was, and
# what a run starts from is pretrained first if it is not there. Each script ends with OUT/report/report.html. Without DATA,
# scales other than paper take text that Python carries.
#
#   SEEDS="6199 6200"    that many runs of each compression      TASK_DATA=DIR   the tasks' items as files, not from the hub
#   BASE=RUN             compress this one                       TASKS, LIMIT    which tasks, how many items of each
#   JOBS=2               runs at once, without a GPU             REPORT=0        no page
#   TEACHER=separate     a teacher on ranks of its own: TEACHER_TP, TEACHER_PP, TEACHER_DP; tools/plan.py says how many

if ((BASH_VERSINFO[0] * 10 + BASH_VERSINFO[1] < 44)); then
  echo "bash $BASH_VERSION is too old for the experiments: 4.4 or later is needed (macOS: brew install bash)" >&2
  exit 2
fi
SCALE=${SCALE:-paper}
RUNS=${RUNS:-runs}
OUT=${OUT:-$RUNS/$SCALE}
SEEDS=${SEEDS:-6199}

# Of the scales besides the papers': widths that stand for 1,024 and 2,048, sequence, batch in sequences, vocabulary,
# batches of a validation; steps for 160B tokens, for 20B, of the seed phase, and between two removals for 100M, 500M and
# 1B; learning rates of pretraining and compression.
case $SCALE in
  paper)  SCALED="- - 2048 1024 50257 5  80000 10000 500 50 250 500  - -" ;;
  small)  SCALED="384 768 512 64 4096 8  800 200 10 1 5 10  6e-4 3e-4" ;;
  laptop) SCALED="192 320 256 16 4096 8  2400 64 3 1 2 4  8e-4 4e-4" ;;
  tiny)   SCALED="64 128 128 8 1024 8  96 40 2 1 2 3  2e-3 1e-3" ;;
  *) echo "SCALE=$SCALE is not known; it is paper, small, laptop or tiny" >&2; exit 2 ;;
esac
read -r NARROW WIDE LENGTH BATCH VOCABULARY EVAL_ITERS BASE_STEPS STEPS SEED_STEPS GAP_100M GAP_500M GAP_1B BASE_LR LR <<< "$SCALED"
if [[ $SCALE == paper || $SCALE == small ]]; then DEVICE=${DEVICE:-a100-80gb}; else DEVICE=${DEVICE:-cpu}; fi
# Tasks: all thirteen in the papers' settings, elsewhere those that TASK_DATA has.
TASK_LIST=(${TASKS-})
if [[ -z ${TASKS+given} && $SCALE == paper ]]; then
  TASK_LIST=(paper13)
elif [[ -z ${TASKS+given} && -n ${TASK_DATA:-} ]]; then
  for file in "$TASK_DATA"/*_validation.jsonl*; do
    if [[ ! -e $file ]]; then
      echo "TASK_DATA=$TASK_DATA has no file such as piqa_validation.jsonl; docs/evaluation.md says what belongs there" >&2
      exit 2
    fi
    file=${file##*/} && TASK_LIST+=("${file%%_validation*}")
  done
fi

if [[ $SCALE == tiny ]]; then export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}; fi  # too small for threads to share

source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

# by_scale PAPER OTHERS: the first in the papers' settings, the second where there is less time.
by_scale() {
  if [[ $SCALE == paper ]]; then echo "$1"; else echo "$2"; fi
}

# steps_of BUDGET: optimizer steps of 20B tokens, or of the pretraining that 40B, 80B, 160B or 320B stand for.
steps_of() {
  case $1 in
    20B) echo "$STEPS" ;;
    40B | 80B | 160B | 320B) echo $((BASE_STEPS * ${1%B} / 160)) ;;
    *) echo "$1 tokens are not known; it is 20B, 40B, 80B, 160B or 320B" >&2; exit 2 ;;
  esac
}

# gap_of GAP: steps between two removals.
gap_of() {
  case $1 in
    0) echo 0 ;;
    100M) echo "$GAP_100M" ;;
    500M) echo "$GAP_500M" ;;
    1B) echo "$GAP_1B" ;;
    *) echo "GAP=$1 is not known; it is 0, 100M, 500M or 1B" >&2; exit 2 ;;
  esac
}

# Table 1: what a model is, and its peak learning rates in pretraining and in compression.
describe_model() {
  local layers=24 width=$NARROW
  case $1 in
    180m) MICRO=16 PAPER_LR=6.0e-4 layers=12 ;;
    300m) MICRO=16 PAPER_LR=3.0e-4 PAPER_COMPRESSION_LR=3e-5 ;;
    610m) MICRO=8 PAPER_LR=2.5e-4 layers=12 width=$WIDE ;;
    1.1b) MICRO=8 PAPER_LR=2.0e-4 PAPER_COMPRESSION_LR=2e-5 width=$WIDE ;;
    *) echo "the model $1 is not known; it is 180m, 300m, 610m or 1.1b" >&2; exit 2 ;;
  esac
  if [[ $SCALE == paper ]]; then
    MODEL=(--model "palm-$1${FLAVOUR--paper}")     # FLAVOUR= for no biases and QK-LayerNorm per head
    MICRO=${MICRO_BATCH:-$MICRO}
  else
    MODEL=(--model "palm-tiny${FLAVOUR-}" --hidden-size "$width" --num-layers "$layers")
    MODEL+=(--num-attention-heads $((width / 64)))
    MODEL+=(--max-position-embeddings "$LENGTH")
    MICRO=${MICRO_BATCH:-$((BATCH / RANKS > 16 ? 16 : BATCH / RANKS))}
  fi
}

# common_flags STEPS SAVE_INTERVAL [VALIDATIONS]: sets COMMON to text, batch, habits and, in the papers' settings, optimizer.
common_flags() {
  COMMON=("${CORPUS_FLAGS[@]}" --seq-length "$LENGTH" --global-batch-size "$BATCH" --micro-batch-size "$MICRO")
  if [[ $SCALE == paper ]]; then
    COMMON+=(--optimizer lion --weight-decay 1e-4 --beta1 0.9 --beta2 0.95 --clip-grad 1.0)
    COMMON+=(--save-interval "$2" --eval-interval "$2" --eval-iters "$EVAL_ITERS")
  else
    COMMON+=(--log-interval 10 --save-interval "$2" --eval-interval $(($1 / $3)) --eval-iters "$EVAL_ITERS")
  fi
}

# pretrain MODEL BUDGET: from fresh weights, with the rate of pretraining.
pretrain() {
  local model=$1 budget=$2 steps rate
  steps=$(steps_of "$budget")
  describe_model "$model"
  if [[ $SCALE == paper ]]; then
    common_flags "$steps" 1000
    rate=(--lr "$PAPER_LR" --train-tokens "$budget" --nominal-tokens --lr-warmup-tokens 4B)
  else
    common_flags "$steps" $(($(steps_of 40B) < steps ? $(steps_of 40B) : steps)) 8
    rate=(--lr "$BASE_LR" --train-iters "$steps")
  fi
  if ((steps > $(steps_of 40B))); then rate+=(--save-retain-interval "$(steps_of 40B)"); fi
  ALONE=1 train "$model-$budget" "${MODEL[@]}" "${COMMON[@]}" "${rate[@]}" --seed 6198 \
    --label "model=${model^^}" "checkpoint=$budget"
  score "$OUT/$model-$budget"
}

# method_flags METHOD: sets METHOD_FLAGS to the losses of a method, and to where its teacher is.
method_flags() {
  local homotopic=(vanilla hidden-states embedding-table attention-scores)
  METHOD_FLAGS=()
  case $1 in
    teacher-free) return ;;
    vanilla) METHOD_FLAGS=(--loss vanilla) ;;
    vanilla-lambda-*) METHOD_FLAGS=(--loss "vanilla:weight=${1##*-}") ;;
    minilm) METHOD_FLAGS=(--loss vanilla minilm) ;;
    homotopic) METHOD_FLAGS=(--loss "${homotopic[@]}") ;;
    minilm-no-lm) METHOD_FLAGS=(--loss vanilla minilm --lm-weight 0) ;;
    homotopic-no-lm) METHOD_FLAGS=(--loss "${homotopic[@]}" --lm-weight 0) ;;
    *) echo "the method $1 is not known" >&2; exit 2 ;;
  esac
  METHOD_FLAGS+=(--teacher-placement "${TEACHER:-colocated}")
  if [[ ${TEACHER:-colocated} == separate ]]; then
    METHOD_FLAGS+=(--teacher-tensor-model-parallel-size "${TEACHER_TP:-1}")
    METHOD_FLAGS+=(--teacher-pipeline-model-parallel-size "${TEACHER_PP:-1}")
    METHOD_FLAGS+=(--teacher-data-parallel-size "${TEACHER_DP:-1}")
  fi
}

# start_from MODEL CHECKPOINT: sets START to what is compressed, pretrained first if it is not there. A checkpoint of
# less than 160B tokens is one on the way, of the longest pretraining that the scale has.
start_from() {
  local whole=160B steps
  steps=$(steps_of "$2")
  if [[ -n ${BASE:-} ]]; then
    START=$BASE
    return
  fi
  if [[ $SCALE == paper && $1 == 300m && $2 != 160B ]]; then whole=320B; fi
  if [[ $2 == 320B ]]; then whole=320B; fi
  pretrain "$1" "$whole"
  START=$OUT/$1-$whole
  if [[ $2 != "$whole" ]]; then
    START+=$(printf '/checkpoints/iter_%07d' "$steps")
    score "$START"
  fi
}

# compress MODEL CHECKPOINT LAYOUT LAYERS GAP METHOD: LAYERS of 24 leave after the seed phase; 20B tokens in all.
compress() {
  local model=$1 checkpoint=$2 layout=$3 layers=$4 gap=$5 method=$6 seed name schedule between
  start_from "$model" "$checkpoint"
  describe_model "$model"
  method_flags "$method"
  between=$(gap_of "$gap")
  if [[ $SCALE == paper ]]; then
    common_flags "$STEPS" 500
    schedule=(--lr "$PAPER_COMPRESSION_LR" --train-tokens 20B --nominal-tokens --lr-warmup-tokens 800M)
    schedule+=(--pruning-seed-tokens 1B --pruning-gap-tokens "$gap")
  else
    common_flags "$STEPS" "$STEPS" 4
    schedule=(--lr "$LR" --train-iters "$STEPS" --pruning-seed-tokens $((SEED_STEPS * BATCH * LENGTH)))
    schedule+=(--pruning-gap-tokens $((between * BATCH * LENGTH)))
  fi
  for seed in $SEEDS; do
    name=$model-$checkpoint.$layout-$layers
    if [[ $gap != 0 ]]; then name+=.gap-$gap; fi
    if [[ $method != teacher-free ]]; then name+=.$method; fi
    if [[ $seed != 6199 ]]; then name+=.seed-$seed; fi
    train "$name" --load "$START" "${COMMON[@]}" "${schedule[@]}" --pruning-layout "$layout" \
      --pruning-num-layers "$layers" "${METHOD_FLAGS[@]}" --seed "$seed" \
      --label "model=${model^^}" "checkpoint=$checkpoint" "gap=$gap"
    score "$OUT/$name"
  done
}
