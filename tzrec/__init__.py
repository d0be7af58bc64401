"""tzrec: an open recommender framework.

Importing the package does nothing but define its version: no torch, no environment
changes, no logging setup, no seeds.
"""

__version__ = "0.1.0"
