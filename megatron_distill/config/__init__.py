"""Typed configuration: the only place where a flag's name, type, default, help and check are written. No torch."""
