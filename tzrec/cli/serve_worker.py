"""One worker of ``tzrec serve``: ``python -m tzrec.cli.serve_worker``."""

from __future__ import annotations

import sys

from tzrec.cli.console import run_command
from tzrec.cli.job import start


def main() -> int:
    """Serves as the first line of the input says; returns the exit code."""
    from tzrec.serving.worker import Assignment, run_worker

    line = sys.stdin.readline()

    def command() -> int:
        start()
        return run_worker(Assignment.from_json(line))

    return run_command(command)


if __name__ == "__main__":
    from tzrec.serving.server import end_process

    end_process(main())
