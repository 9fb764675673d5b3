"""Counts how every situation of a kind ends, where a test has a few of them: `python -m tests.audit`."""
