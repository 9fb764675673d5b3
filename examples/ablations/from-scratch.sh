#!/usr/bin/env bash
# Train large, then compress, or train small (arXiv:2305.14864, "half"): the compressed model after 20B tokens, the same
# size from scratch after 20B and after 160B, with the long learning curves. MODELS chooses the large models.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

for model in ${MODELS:-$(by_scale "300m 1.1b" 300m)}; do
  layout=max-gap half=180m
  if [[ $model == 1.1b ]]; then layout=input half=610m; fi
  compress "$model" 160B "$layout" 12 0 teacher-free
  pretrain "$half" 20B
  pretrain "$half" 160B
done
finish
