"""Text to tokens to batches; everything is a function of the data, the seed and a position."""
