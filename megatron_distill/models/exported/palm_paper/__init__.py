"""The -paper flavour of PaLM for transformers."""
