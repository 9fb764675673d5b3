#!/usr/bin/env bash
# Everything that wants a GPU: its tests, then palm-300m and palm-1.1b in bf16 beside plain PyTorch with torch.compile.
#
#   bash benchmarks/gpu.sh
#   WHEELS=folder bash benchmarks/gpu.sh     without a network: megatron-core and small wheels come from this folder
#
# Uses the python on PATH, which must have torch >= 2.6. The last lines are one JSON object for each figure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "no GPU that torch can use is here; benchmarks/gpu.sh needs one (NVIDIA, torch >= 2.6 with CUDA)" >&2
  exit 2
}
needed=$(python - << 'PYTHON'
from importlib.util import find_spec
names = {"megatron.core": "megatron-core>=0.16.1,<0.17", "pybind11": "pybind11", "einops": "einops", "psutil": "psutil",
         "tokenizers": "tokenizers", "sentencepiece": "sentencepiece", "safetensors": "safetensors", "numpy": "numpy",
         "tensorboard": "tensorboard", "transformers": "transformers>=5,<5.25", "pytest": "pytest",
         "hypothesis": "hypothesis", "msgspec": "msgspec>=0.19,<0.23"}
def missing(name):
    try:
        return find_spec(name) is None
    except ModuleNotFoundError:
        return True
print(*(package for name, package in names.items() if missing(name)), sep="\n")
PYTHON
)
if [[ -n $needed ]]; then
  echo "installing" $needed
  # Without dependencies: torch is here and must stay what it is.
  xargs -d '\n' python -m pip install -q --no-deps ${WHEELS:+--no-index --find-links "$WHEELS"} <<< "$needed"
fi
python setup.py -q build_ext --inplace
python -m megatron_distill doctor

echo "running tests/gpu"
python -m pytest tests/gpu -m gpu

echo "training palm-300m and palm-1.1b"
python benchmarks/gpu_training.py --model palm-300m --micro-batch-size "${MICRO_BATCH_300M:-8}"
python benchmarks/gpu_training.py --model palm-1.1b --micro-batch-size "${MICRO_BATCH_1B:-4}"
python benchmarks/step_overhead.py
python benchmarks/kd_loss.py
python benchmarks/relation_loss.py
python benchmarks/kd_step.py
