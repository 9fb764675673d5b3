"""Saving and loading: our own sharded checkpoints, and Hugging Face folders."""
