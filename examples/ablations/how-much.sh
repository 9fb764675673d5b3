#!/usr/bin/env bash
# How much can leave (arXiv:2305.14864v1, Figure 3): 4, 8 or 12 of 24 layers by input, of palm-300m after 40B to 320B
# tokens and of palm-1.1b after 40B to 160B. LAYERS, MODELS and CHECKPOINTS choose.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

for model in ${MODELS:-$(by_scale "300m 1.1b" 300m)}; do
  checkpoints="40B 80B 160B"
  if [[ $SCALE == paper && $model == 300m ]]; then checkpoints+=" 320B"; fi
  for checkpoint in ${CHECKPOINTS:-$checkpoints}; do
    for layers in ${LAYERS:-4 8 12}; do
      compress "$model" "$checkpoint" input "$layers" 0 teacher-free
    done
  done
done
finish
