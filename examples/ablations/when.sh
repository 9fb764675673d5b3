#!/usr/bin/env bash
# When layers leave (arXiv:2305.14864v2, section 4): all at once, or one by one with 100M, 500M or 1B tokens between.
# 12 of 24 layers, with the layouts of the main comparison. MODELS chooses.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

for model in ${MODELS:-$(by_scale "300m 1.1b" 300m)}; do
  layout=max-gap
  if [[ $model == 1.1b ]]; then layout=input; fi
  for gap in 0 100M 500M 1B; do
    compress "$model" 160B "$layout" 12 "$gap" teacher-free
  done
done
finish
