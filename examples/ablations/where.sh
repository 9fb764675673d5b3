#!/usr/bin/env bash
# Where layers leave (arXiv:2305.14864): nine layouts with 8 of 24 layers (v1, Table 5: palm-300m after 80B and 320B
# tokens), five with 12 of 24 (v2, Table 5: palm-300m and palm-1.1b after 160B). MODELS and CHECKPOINTS choose.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../papers.sh"

for checkpoint in ${CHECKPOINTS:-$(by_scale "80B 320B" 80B)}; do
  for layout in max-gap input output both middle alt-input alt-output alt-both alt-middle; do
    compress 300m "$checkpoint" "$layout" 8 0 teacher-free
  done
done
for model in ${MODELS:-$(by_scale "300m 1.1b" 300m)}; do
  for layout in max-gap input output middle both; do
    compress "$model" 160B "$layout" 12 0 teacher-free
  done
done
finish
