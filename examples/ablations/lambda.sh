#!/usr/bin/env bash
# The weight of the distillation loss (arXiv:2305.14864v2, Figure 3): vanilla distillation with lambda 1, 2, 4 and 8 (the
# papers give no values; LAMBDAS chooses others). MODELS chooses the models.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

for model in ${MODELS:-$(by_scale 1.1b 300m)}; do
  layout=max-gap
  if [[ $model == 1.1b ]]; then layout=input; fi
  compress "$model" 160B "$layout" 12 0 teacher-free
  for lambda in ${LAMBDAS:-1 2 4 8}; do
    method=vanilla-lambda-$lambda
    if [[ $lambda == 1 ]]; then method=vanilla; fi
    compress "$model" 160B "$layout" 12 0 "$method"
  done
done
finish
