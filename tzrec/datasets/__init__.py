"""Rows on their way to a `Batch`: readers, row split, position, parser, loader, writers."""
