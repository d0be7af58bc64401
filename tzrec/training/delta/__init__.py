"""Dumps of the embedding rows that have changed since the last dump (docs/delta_dump.md)."""
