#!/usr/bin/env bash
# All tests, in the environment that the quickstart uses too. Arguments go to pytest: bash tests/run.sh tests/models
# WORKERS files are tested at once: as many as there are cores, at most 4; WORKERS=0 leaves all in one process.
set -euo pipefail
EXTRAS=dev source "$(dirname "${BASH_SOURCE[0]}")/../examples/environment.sh"

echo "checking style, types and the direction of imports"
ruff check .
ruff format --check .
mypy
lint-imports
echo "running the tests"
CORES=$(getconf _NPROCESSORS_ONLN)
python -m pytest --numprocesses "${WORKERS:-$((CORES > 4 ? 4 : CORES))}" --dist loadfile --no-loadscope-reorder "$@"
