"""``tzrec demo``."""

from __future__ import annotations

from tzrec.demo.run import add_arguments, run

__all__ = ["DESCRIPTION", "EXAMPLES", "add_arguments", "run"]

DESCRIPTION = (
    "Makes a click log with a known structure, trains the example model on it, evaluates,\n"
    "exports and predicts, and says what happened."
)
EXAMPLES = """\
  tzrec demo"""
