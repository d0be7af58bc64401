"""What every command that trains or predicts does before torch is imported."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tzrec.cli.console import quiet_libraries, run_command, setup_logging
from tzrec.cli.parser import Parser
from tzrec.options import Options, current_rank, from_environment, prepare_process
from tzrec.utils.memory import keep_freed_memory

logger = logging.getLogger("tzrec")


def start() -> Options:
    """Sets up the process: environment, memory, logging, silence of libraries.

    Of several processes, the first one tells how it goes; the others only warn.

    Raises:
        ConfigError: an environment variable has a value that it cannot have.
    """
    options = from_environment()
    prepare_process()
    keep_freed_memory()
    chatty = options.rank == 0 or options.log_level in ("ERROR", "CRITICAL", "DEBUG")
    setup_logging(options.log_level if chatty else "WARNING")
    quiet_libraries()
    if options.rank == 0:
        for variable in options.no_effect:
            logger.warning(
                "environment variable %s has no effect: its part comes with a later version",
                variable,
            )
    return options


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Imports without garbage collection, which takes a fifth of the time of torch's and ours.

    What is imported is never collected later either: it stays until the process ends.
    """
    if "tzrec.main" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def check_early(path: str, *, inputs: Sequence[str] = (), **overrides: Any) -> None:
    """Checks the config before torch is imported, so that a wrong one answers at once.

    Args:
        path: config file.
        inputs: input paths whose files are compared with the config too (the first ones, their
            schemas and ranges), by the first of several processes.
        overrides: as `tzrec.config.prepare` takes them.

    Raises:
        ConfigError: with all problems.
        DataError: the files do not fit the config.
    """
    from tzrec.cli.rules import RULES
    from tzrec.config import prepare

    pipeline = prepare(path, log_warnings=False, rules=RULES, **overrides)
    if inputs and current_rank() == 0:
        from tzrec.cli.check_data import BEFORE_A_RUN, check_data

        _, warnings = check_data(pipeline, inputs, BEFORE_A_RUN)
        for line in warnings:
            logger.warning(line)


def interface_command(
    parser: Parser, body: Callable[[argparse.Namespace], None], argv: list[str] | None
) -> int:
    """Runs a module of the interface (``python -m tzrec.train_eval``).

    Args:
        parser: its flags.
        body: what to do with the parsed flags.
        argv: arguments; None takes those of the process.
    """
    arguments = sys.argv[1:] if argv is None else argv

    def command() -> None:
        args = parser.parse_args(arguments)
        start()
        body(args)

    return run_command(command)


def tool_command(
    module: str,
    description: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    body: Callable[[argparse.Namespace], None],
    argv: list[str] | None,
) -> int:
    """Runs a tool of the interface (``python -m tzrec.tools.hitrate``).

    Args:
        module: its name.
        description: what its help says.
        add_arguments: adds its flags.
        body: what to do with the parsed flags.
        argv: arguments; None takes those of the process.
    """
    parser = Parser(prog=f"python -m {module}", description=description, spellings=False)
    add_arguments(parser)
    return interface_command(parser, body, argv)
