# Sourced by the scripts of the papers' experiments, after examples/papers.sh has set the scale: the text, how a run is
# started, kept, scored, and laid beside the papers.
#
# What follows a script's name goes to every run of it and wins over what the script says; --dry-run prints the commands
# and what they cost instead of running them. NODES, NODE_RANK, MASTER_ADDR, MASTER_PORT and GPUS describe a cluster
# (examples/cluster/).

DRY_RUN="" FLAGS=()
for word in "$@"; do
  if [[ $word == --dry-run ]]; then DRY_RUN=1; else FLAGS+=("$word"); fi
done
if ((${#TASK_LIST[@]})) && [[ -z $DRY_RUN ]]; then EXTRAS=${EXTRAS:-eval}; fi
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# whole_number NAME LEAST: ends the script unless the variable NAME is a whole number of at least LEAST. Nothing else may
# be given to bash's arithmetic, which would run what it finds there.
whole_number() {
  if [[ ! ${!1} =~ ^(0|[1-9][0-9]{0,5})$ ]] || ((${!1} < $2)); then
    echo "$1=${!1} must be a whole number of at least $2; change it, or unset it for the default" >&2
    exit 2
  fi
}

GPUS=${GPUS:-$({ nvidia-smi -L 2> /dev/null || true; } | wc -l | tr -d ' ')}
NODES=${NODES:-1}
whole_number GPUS 0
whole_number NODES 1
RANKS=$((NODES * (GPUS > 0 ? GPUS : 1)))
declare -A PLANNED=()      # run -> the flags it is started with
declare -A RUNNING=()      # process -> run
NAMES=() TO_SCORE=() UNSCORED="" ATTENDED=""
CORES=$(getconf _NPROCESSORS_ONLN)
if ((GPUS > 0)) || [[ $SCALE == paper ]]; then JOBS=${JOBS:-1}; else JOBS=${JOBS:-$((CORES > 4 ? 4 : CORES))}; fi
whole_number JOBS 1
if ((${#TASK_LIST[@]})) && [[ -z $DRY_RUN ]]; then python -m megatron_distill tasks "${TASK_LIST[@]}"; fi
if [[ -n ${LIMIT:-} ]]; then whole_number LIMIT 1; fi
for SEED in $SEEDS; do whole_number SEED 0; done
if [[ -z ${SEED:-} ]]; then echo "SEEDS is blank; give whole numbers, such as SEEDS=\"6199 6200\", or unset it" >&2; exit 2; fi
# After SIGTERM ranks finish their step and save, which may take longer than the 30 s that torchrun gives them (from torch 2.12 on
# it reads this variable; an older one kills them after 30 s).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}

# DATA and TOKENIZER of a scale that works without any: text that every Python installation carries.
library_data() {
  local out=$OUT/data
  if [[ ! -e $out/corpus.idx && -z $DRY_RUN ]]; then
    mkdir -p "$out"
    python tools/gather_text.py --output "$out/text.jsonl"
    python tools/train_tokenizer.py --input "$out/text.jsonl" --vocab-size "$VOCABULARY" --output "$out/tokenizer.json"
    python tools/preprocess_data.py --input "$out/text.jsonl" --tokenizer "$out/tokenizer.json" --output-prefix "$out/corpus"
  fi
  CORPUS_FLAGS=(--data-path "$out/corpus" --tokenizer "$out/tokenizer.json" --split 97,3,0)
  [[ -e $out/corpus.idx ]] || CORPUS_FLAGS=(--vocab-size "$VOCABULARY")
}

if [[ -n ${DATA:-} ]]; then
  CORPUS_FLAGS=(--data-path "$DATA" ${TOKENIZER:+--tokenizer "$TOKENIZER"} ${VALID_DATA:+--valid-data-path "$VALID_DATA"})
elif [[ $SCALE != paper ]]; then
  library_data
elif [[ -n $DRY_RUN ]]; then
  CORPUS_FLAGS=()
else
  echo "DATA is not set: give the prefix of a corpus that tools/preprocess_data.py made, such as DATA=c4/train" >&2
  exit 2
fi

# train NAME FLAGS...: a run in $OUT/NAME, unless it is finished; where there is no GPU, up to JOBS of them at once, each
# with its output in $OUT/logs. ALONE=1 waits for the run, for others need it.
train() {
  local name=$1 run=$OUT/$1
  shift
  [[ -z ${PLANNED[$name]:-} ]] || return 0
  NAMES+=("$name")
  set -- "$@" --save "$run" "${FLAGS[@]}"
  PLANNED[$name]=$(printf ' %q' "$@")
  [[ -z $DRY_RUN ]] || return 0
  if [[ -e $run/result.json && ${#FLAGS[@]} == 0 ]]; then
    echo "$run is finished"
  elif ((JOBS == 1)) || [[ -n ${ALONE:-} ]]; then
    start "$run" "$@"
  else
    settle $((JOBS - 1))
    mkdir -p "$OUT/logs"
    echo "$run: $OUT/logs/$name.log"
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((CORES > JOBS ? CORES / JOBS : 1))} start "$run" "$@" > "$OUT/logs/$name.log" 2>&1 &
    RUNNING[$!]=$name
  fi
}

# start RUN FLAGS...: the run, to its end. Flags are checked in one process, which ends with one sentence and exit code 2 if
# they are wrong, before many ranks start.
start() {
  local run=$1
  shift
  if ((RANKS == 1)); then
    attended python pretrain_distill.py "$@"
  else
    WORLD_SIZE=$RANKS python pretrain_distill.py "$@" --dry-run > /dev/null
    attended $(launcher) pretrain_distill.py "$@"
  fi
  if [[ ! -e $run/result.json ]]; then
    echo "$run was stopped; the same command goes on from there" >&2
    exit 143
  fi
}

# attended COMMAND...: run it and return its exit code. It runs in the background, because bash attends to a signal only after
# a command in the foreground has ended. torchrun would die of SIGUSR1 and SIGUSR2; the ranks have handlers of their own.
attended() {
  local code
  (trap '' USR1 USR2 && exec "$@") &
  ATTENDED=$!
  code=0
  wait "$ATTENDED" || code=$?
  ATTENDED=""
  return "$code"
}

# settle N: wait until at most N runs go on. The first that fails ends the script; the others save and stop.
settle() {
  local pid code
  while ((${#RUNNING[@]} > $1)); do
    for pid in "${!RUNNING[@]}"; do
      if ! kill -0 "$pid" 2> /dev/null; then
        code=0
        wait "$pid" || code=$?
        if ((code)); then
          tail -n 3 "$OUT/logs/${RUNNING[$pid]}.log" >&2
          unset "RUNNING[$pid]"
          stop_all
          exit "$code"
        fi
        unset "RUNNING[$pid]"
      fi
    done
    sleep 0.2
  done
}

stop_all() {
  local pid
  [[ -z $ATTENDED ]] || kill -TERM "$ATTENDED" 2> /dev/null || true
  for pid in "${!RUNNING[@]}"; do pkill -TERM -P "$pid" || true; done
  wait
}
trap 'stop_all; exit 143' INT TERM HUP USR1 USR2

# What stands before `pretrain_distill.py`.
launcher() {
  if ((RANKS == 1)); then
    echo python
  elif ((NODES == 1)); then
    echo "torchrun --standalone --nproc-per-node $GPUS"
  elif [[ -n $DRY_RUN ]]; then
    echo "torchrun --nnodes $NODES --nproc-per-node $GPUS"
  else
    echo "torchrun --nnodes $NODES --node-rank ${NODE_RANK:?} --nproc-per-node $GPUS --max-restarts ${RESTARTS:-3}" \
      "--rdzv-backend c10d --rdzv-endpoint ${MASTER_ADDR:?}:${MASTER_PORT:-29500} --rdzv-id ${JOB_ID:-distill}"
  fi
}

# score PATH: the tasks on a run, or on one of its checkpoints, when all training of the script is done.
score() {
  [[ " ${TO_SCORE[*]} " == *" $1 "* ]] || TO_SCORE+=("$1")
}

score_now() {
  echo "scoring $1"
  local from=(${TASK_DATA:+--data "$TASK_DATA"} ${LIMIT:+--limit "$LIMIT"})
  local code=0
  python tools/evaluate.py "$1" --keep --tasks "${TASK_LIST[@]}" "${from[@]}" > /dev/null || code=$?
  case $code in
    0) ;;
    2) UNSCORED=1 ;;  # some task could not be run, which it says; the others count, and the page says what is missing
    *) exit "$code" ;;
  esac
}

# finish: the end of every script: the scores, and the page with the papers' figures beside ours; or what it would cost.
finish() {
  if [[ -n $DRY_RUN ]]; then
    local name
    for name in "${NAMES[@]}"; do echo "+ $(launcher) pretrain_distill.py${PLANNED[$name]}"; done
    for name in "${NAMES[@]}"; do echo "${PLANNED[$name]}"; done | python tools/cost.py --ranks "$RANKS" --device "$DEVICE"
    return
  fi
  settle 0
  [[ ${NODE_RANK:-0} == 0 ]] || return 0
  local path
  if ((${#TASK_LIST[@]})); then
    for path in "${TO_SCORE[@]}"; do score_now "$path"; done
  fi
  [[ ${REPORT:-1} == 0 ]] || python tools/report.py "$OUT" --output "$OUT/report"
  if [[ -n $UNSCORED ]]; then
    echo "some scores are missing, as said above; the same command takes those again, and keeps the others" >&2
    exit 2
  fi
}
