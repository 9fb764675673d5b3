#!/usr/bin/env bash
# Every experiment of the papers, one after the other, and one page with all of them: OUT/report/report.html.
# Takes what examples/papers.sh lists: SCALE, DATA, TOKENIZER, SEEDS, ...; stopped, it goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for script in main/300m main/1.1b main/v1 ablations/{where,when,how-much,lambda,no-lm,from-scratch}; do
  echo "== examples/$script.sh"
  bash "examples/$script.sh" "$@"
done
