"""Negative samplers in process: tables in shared memory, seeded draws, no server."""
