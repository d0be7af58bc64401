"""Models: one file each, found by the name of their config message."""
