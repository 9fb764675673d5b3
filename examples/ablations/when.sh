#!/usr/bin/env bash
# When layers leave (arXiv:2305.14864v2, section 4): all at once, or one by one with 100M, 500M or 1B tokens between.
# 12 of 24 layers with the layouts of the main comparison, and 8 by input (v1, Figure 1: palm-300m after 80B and 320B).
# MODELS and CHECKPOINTS choose.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

for model in ${MODELS:-$(by_scale "300m 1.1b" 300m)}; do
  layout=max-gap
  if [[ $model == 1.1b ]]; then layout=input; fi
  for gap in 0 100M 500M 1B; do
    compress "$model" 160B "$layout" 12 "$gap" teacher-free
  done
done
for checkpoint in ${CHECKPOINTS-$(by_scale "80B 320B" "")}; do
  for gap in 0 100M 500M 1B; do
    compress 300m "$checkpoint" input 8 "$gap" teacher-free
  done
done
finish
