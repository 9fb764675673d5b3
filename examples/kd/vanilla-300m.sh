#!/usr/bin/env bash
# Vanilla distillation of palm-300m into half of its layers, as the papers do (arXiv:2305.14864v2, section 3): a KL
# divergence from the teacher's predictions beside the cross-entropy (Eq. 3). The same layers, data, schedule and
# optimizer as examples/compress/300m.sh. 47 h on 4 x A100-80GB there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

compress 300m "${CHECKPOINT:-160B}" "${LAYOUT:-max-gap}" "${REMOVE:-12}" "${GAP:-0}" vanilla
finish
