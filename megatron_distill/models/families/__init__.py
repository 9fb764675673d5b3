"""Model families, one file each: what Hugging Face calls their parts, and the layer that computes them."""

from .registry import Family, all_families, find_exported, find_family, find_model_type

__all__ = ["Family", "all_families", "find_exported", "find_family", "find_model_type"]
