"""What the server that test ranks are forked from has already imported."""

import warnings

warnings.simplefilter("ignore")

import megatron.core.dist_checkpointing  # noqa: E402, F401
import megatron.core.models.gpt  # noqa: E402, F401
import megatron.core.optimizer  # noqa: E402, F401
import torch  # noqa: E402, F401
