#!/usr/bin/env bash
# miniLM distillation of palm-1.1b into half of its layers, as the papers do (arXiv:2305.14864v2, section 3): vanilla
# and the relations of queries, keys and values in the last layer (Eq. 4). The same layers, data, schedule and
# optimizer as examples/compress/1.1b.sh. 63 h on 8 x A100-80GB there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

compress 1.1b "${CHECKPOINT:-160B}" "${LAYOUT:-input}" "${REMOVE:-12}" "${GAP:-0}" minilm
finish
