#!/usr/bin/env bash
# All tests, in the environment that the quickstart uses too. Arguments go to pytest: bash tests/run.sh tests/models
set -euo pipefail
EXTRAS=dev source "$(dirname "${BASH_SOURCE[0]}")/../examples/environment.sh"

echo "checking style, types and the direction of imports"
ruff check .
ruff format --check .
mypy
lint-imports
echo "running the tests"
python -m pytest "$@"
