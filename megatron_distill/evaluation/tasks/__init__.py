"""Task files of lm-evaluation-harness with the papers' prompts, splits and metrics.

They work with the harness alone too: `lm_eval run --include_path THIS_FOLDER --tasks paper_piqa`.
"""
