#!/usr/bin/env bash
# Compress palm-1.1b by half without a teacher, as the papers do (arXiv:2305.14864v2): 12 of 24 layers leave by input
# after a seed phase of 1B tokens, 20B tokens in all, Lion at a tenth of the pretraining rate. 33 h on 8 x A100-80GB there.
#
#   LAYOUT   where: max-gap input output both middle, or alt-... with fewer layers      REMOVE   how many layers
#   GAP      when: 0 100M 500M 1B       CHECKPOINT   of how much pretraining: 40B 80B 160B 320B, or BASE=RUN
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

compress 1.1b "${CHECKPOINT:-160B}" "${LAYOUT:-input}" "${REMOVE:-12}" "${GAP:-0}" teacher-free
finish
