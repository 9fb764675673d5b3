#!/usr/bin/env bash
# Without the language-model loss (arXiv:2305.14864v2, Figure 4): miniLM and homotopic distillation with it and alone.
# MODELS chooses the models.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

for model in ${MODELS:-$(by_scale 1.1b 300m)}; do
  layout=max-gap
  if [[ $model == 1.1b ]]; then layout=input; fi
  for method in minilm minilm-no-lm homotopic homotopic-no-lm; do
    compress "$model" 160B "$layout" 12 0 "$method"
  done
done
finish
