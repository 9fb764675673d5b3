"""Frozen models that a student learns from: on ranks of their own behind a bridge, or in the student's processes."""
