#!/usr/bin/env bash
# The main comparison of the first version (arXiv:2305.14864v1, Table 3): before, teacher-free and vanilla distillation,
# 12 of 24 layers removed by input, palm-300m after 320B tokens and palm-1.1b after 160B. MODELS chooses.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

for model in ${MODELS:-$(by_scale "300m 1.1b" 300m)}; do
  checkpoint=160B
  if [[ $model == 300m ]]; then checkpoint=320B; fi
  for method in teacher-free vanilla; do
    compress "$model" "$checkpoint" input 12 0 "$method"
  done
done
finish
