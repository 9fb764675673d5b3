"""Which layers leave a model, and when."""
