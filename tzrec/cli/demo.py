"""``tzrec demo``."""

from __future__ import annotations

import argparse

from tzrec.cli.job import start
from tzrec.demo.run import add_arguments
from tzrec.demo.run import run as run_demo

__all__ = ["DESCRIPTION", "EXAMPLES", "add_arguments", "run"]

DESCRIPTION = (
    "Makes a click log with a known structure, trains the example model on it, evaluates,\n"
    "exports and predicts, and says what happened."
)
EXAMPLES = """\
  tzrec demo
  tzrec demo --dir /tmp/demo --quick"""


def run(args: argparse.Namespace) -> int:
    """Runs the demo as the commands that it shows would run."""
    start()
    return run_demo(args)
