# Sourced by the scripts: makes .venv in the project's root once, and uses it. `EXTRAS=dev` adds what tests need.
# PYTHON=/path/to/python3.11 chooses the interpreter it is made with; NO_VENV=1 uses the python on PATH as it is.
# What is installed is what the tests ran with (constraints.txt); NEWEST=1 takes the newest that pyproject.toml allows.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

# pip_install ARGUMENTS...: pip install, held to constraints.txt unless NEWEST is set.
pip_install() {
  if [[ -n ${NEWEST:-} ]]; then pip install -q "$@"; else pip install -q --constraint constraints.txt "$@"; fi
}

install_torch() {
  if command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; then
    pip_install "torch>=2.6,<2.14"
  elif [[ $(uname -s) == Darwin ]]; then
    pip_install torch==2.13.0
  else
    # Without a GPU the CPU build: gigabytes smaller. PyTorch keeps it on an index of its own.
    pip_install torch==2.13.0+cpu 2> /dev/null \
      || pip_install torch==2.13.0+cpu --index-url https://download.pytorch.org/whl/cpu 2> /dev/null \
      || { echo "the CPU build of torch cannot be had here; installing the one with CUDA, several GB" \
        && pip_install torch==2.13.0; }
  fi
}

prepare_environment() {
  if [[ -n ${NO_VENV:-} ]]; then
    export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
    return
  fi
  local python=${PYTHON:-python3} stamp
  if [[ ! -x .venv/bin/python ]]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
      echo "$("$python" --version) is too old: Python 3.10 or later is needed; set PYTHON=/path/to/it" >&2
      exit 2
    }
    echo "making a virtual environment in .venv"
    "$python" -m venv .venv
  fi
  source .venv/bin/activate
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  stamp=.venv/installed-${EXTRAS:-base}${NEWEST:+-newest}-$(cat pyproject.toml constraints.txt setup.py csrc/* | cksum | cut -d' ' -f1)
  if [[ ! -e $stamp ]]; then
    echo "installing megatron_distill${EXTRAS:+ with [$EXTRAS]} and what it needs (a few minutes)"
    python -c 'import torch' 2> /dev/null || install_torch
    pip_install -e ".${EXTRAS:+[$EXTRAS]}"
    touch "$stamp"
  fi
}

prepare_environment
