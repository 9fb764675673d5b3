"""What every reader imports, once for all of the forked processes."""

import gc
import importlib
import io
import os
import warnings

# Before any library starts threads that a forked process would miss.
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1", TQDM_DISABLE="1")
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", WANDB_MODE="disabled", MPLBACKEND="svg")
warnings.simplefilter("ignore")

MODULES = (
    *("accelerate", "datasets", "lm_eval.evaluator", "lm_eval.models.huggingface", "lm_eval.tasks"),
    *("matplotlib.backends.backend_svg", "matplotlib.pyplot", "PIL.ImageOps", "safetensors.torch", "gigatoken"),
    *("torch.utils.tensorboard", "torch.utils.serialization", "transformers.generation.utils"),
    *(f"transformers.models.{name}.modeling_{name}" for name in ("llama", "gpt2", "cohere")),
    *("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto"),
    *("sentencepiece.sentencepiece_model_pb2", "megatron.core.dist_checkpointing", "megatron.core.optimizer"),
    *(f"megatron_distill.checkpoint.{name}" for name in ("comparison", "describe", "huggingface", "from_hf")),
    *("megatron_distill.data.prepare.preprocess", "megatron_distill.evaluation.evaluate"),
    *("megatron_distill.generation.text", "megatron_distill.generation.generate"),
    *("megatron_distill.models.palm_block", "megatron_distill.report.papers_page", "megatron_distill.report.summary"),
    *("megatron_distill.training.dry_run", "megatron_distill.training.job", "megatron_distill.training.teaching"),
)

for _name in MODULES:
    importlib.import_module(_name)

from matplotlib import pyplot  # noqa: E402

_figure, _axes = pyplot.subplots()
_axes.set_title("fonts are read once")
_figure.savefig(io.BytesIO(), format="svg")
pyplot.close(_figure)
gc.collect()
gc.freeze()  # a forked process does not touch, and so not copy, the pages of what is imported
