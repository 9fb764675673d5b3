"""Ranks, roles and devices: the only package that knows how processes find each other."""
