"""``tzrec doctor``: is this machine ready, and what is to do if not."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tzrec.cli.doctor_checks import Finding, machine, packages, runtime, stack
from tzrec.errors import MissingDependencyError

DESCRIPTION = (
    "Checks the installation: do torch, TorchRec and FBGEMM fit each other, is everything\n"
    "there, what has the machine. Works without torch. Changes nothing."
)
EXAMPLES = """\
  tzrec doctor
  tzrec doctor --quick                         do not import torch"""

_MARKS = {"ok": "OK ", "warn": "?  ", "bad": "BAD"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec doctor``."""
    parser.add_argument(
        "--quick", action="store_true", help="look at versions only, import nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Prints one line a check.

    Returns:
        0 when everything is fine, 2 when something must be done.
    """
    bad = 0
    for finding in _findings(quick=args.quick):
        print(f"{_MARKS[finding.state]} {finding.name:<12} {finding.text}", flush=True)
        if finding.cure:
            print(f"    {'':<12} -> {finding.cure}", flush=True)
        bad += finding.state == "bad"
    if bad:
        print(f"\n{bad} thing{'s' if bad > 1 else ''} to do, see -> above")
    else:
        print("\nReady.")
    return MissingDependencyError.exit_code if bad else 0


def _findings(*, quick: bool) -> Iterator[Finding]:
    yield from stack()
    if not quick:
        yield from runtime()
    yield from packages()
    yield from machine()
