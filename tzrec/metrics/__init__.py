"""Metrics; `update` never communicates, `compute` may."""
