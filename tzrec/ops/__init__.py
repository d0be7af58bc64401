"""Kernels: fast implementations of single operations, behind plain functions and modules."""
