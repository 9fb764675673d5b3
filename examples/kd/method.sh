# Sourced by the scripts of distillation: a run of examples/compress/ with a teacher.
#
#   TEACHER=colocated    the teacher in the student's processes (default)
#   TEACHER=separate     on ranks of its own: TEACHER_TP, TEACHER_PP, TEACHER_DP (1 each) say how many and how;
#                        tools/plan.py says what suits a machine
#
# All that examples/launch.sh and examples/compress/ know works here too: SCALE, GPUS, BASE, LAYOUT, REMOVE, GAP, ...

# distil SIZE NAME FLAGS...: SIZE of examples/compress/, NAME of the run, FLAGS of the method.
distil() {
  local size=$1 name=$2 run
  shift 2
  if [[ ${SCALE:-paper} == tiny ]]; then
    run=${RUNS:-runs}/tiny/$name-$size
  else
    run=${RUNS:-runs}/palm-$size${FLAVOUR:-}-$name
  fi
  local teacher=(--teacher-placement "${TEACHER:-colocated}")
  if [[ ${TEACHER:-colocated} == separate ]]; then
    teacher+=(--teacher-tensor-model-parallel-size "${TEACHER_TP:-1}")
    teacher+=(--teacher-pipeline-model-parallel-size "${TEACHER_PP:-1}" --teacher-data-parallel-size "${TEACHER_DP:-1}")
  fi
  bash "$(dirname "${BASH_SOURCE[0]}")/../compress/$size.sh" --save "$run" "${teacher[@]}" "$@"
}
