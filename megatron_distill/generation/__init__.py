"""Text from a model: sampling with a key-value cache, on any tensor- and pipeline-parallel layout."""
