"""A run: what is decided before it starts (plan), one optimizer step (step), and everything around it (loop)."""
