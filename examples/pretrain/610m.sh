#!/usr/bin/env bash
# Pretrain palm-610m as the papers do (arXiv:2305.14864, Table 1): Lion, batch of 2,097,152 tokens, 160B tokens of C4
# (TOKENS=20B, 40B, 80B or 320B for others), half of palm-1.1b.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

pretrain 610m "${TOKENS:-160B}"
finish
