#!/usr/bin/env bash
# The main comparison (arXiv:2305.14864v2, Table 3) on palm-1.1b: before, teacher-free, and vanilla, miniLM and homotopic
# distillation, all with 12 of 24 layers removed by input and the same 20B tokens. 8 x A100-80GB there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

for method in teacher-free vanilla minilm homotopic; do
  compress 1.1b 160B input 12 0 "$method"
done
finish
