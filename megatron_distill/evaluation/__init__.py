"""What a model knows: zero-shot tasks, perplexity, minimal pairs and generated text."""
