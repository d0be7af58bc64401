"""Operators of feature generation: one file per kind, found by ``feature_type``."""
