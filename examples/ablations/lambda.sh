#!/usr/bin/env bash
# The weight of the distillation loss (arXiv:2305.14864v2, Figure 3): palm-1.1b, vanilla, lambda 1, 2, 4 and 8 (the papers
# give no values; LAMBDAS chooses others). Finished runs are kept: the same command goes on with the rest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../kd/method.sh"

for lambda in ${LAMBDAS:-1 2 4 8}; do
  distil 1.1b "vanilla-lambda-$lambda" --loss "vanilla:weight=$lambda" "$@"
done
