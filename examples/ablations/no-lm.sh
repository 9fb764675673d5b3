#!/usr/bin/env bash
# Without the language-model loss (arXiv:2305.14864v2, Figure 4): palm-1.1b, miniLM and homotopic distillation alone.
# Finished runs are kept: the same command goes on with the rest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../kd/method.sh"

distil 1.1b minilm-no-lm --loss vanilla minilm --lm-weight 0 "$@"
distil 1.1b homotopic-no-lm --loss vanilla hidden-states embedding-table attention-scores --lm-weight 0 "$@"
