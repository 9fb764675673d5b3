"""Turn a pretrained decoder-only language model into one of half its size, and say what was lost."""

__version__ = "0.1.0"
