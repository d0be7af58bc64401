"""The ``tzrec`` command. Sub-commands are imported when they are used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tzrec import __version__
from tzrec.cli.console import UsageError, run_command
from tzrec.cli.parser import Parser
from tzrec.errors import did_you_mean

__all__ = ["COMMANDS", "main"]

# Name → what it does. Each is a module of this package with DESCRIPTION, EXAMPLES,
# add_arguments(parser) and run(args) -> exit code.
COMMANDS: Mapping[str, str] = {
    "demo": "train, evaluate, export and predict on made-up clicks, in about two minutes",
    "check": "check a config (and, with --data, its data files)",
    "train": "train and evaluate a model",
    "plan": "say where embedding tables would go on machines of a given size",
    "eval": "evaluate a checkpoint",
    "predict": "predict a table with an exported model or a checkpoint",
    "export": "export a checkpoint as a TorchScript model",
    "embed": "write the vectors of users or items, by a tower of a match model",
    "index": "make an index of item vectors, and a retriever of an exported match model",
    "retrieve": "find the best items for every user of a table",
    "serve": "answer HTTP requests with a model: scores, retrieval, vectors",
    "publish": "make an export the current version of a running server, or go back",
    "hitrate": "measure retrieved items: recall, NDCG, hit rate, MRR, coverage",
    "importance": "measure what each feature is worth to a trained model",
    "data": "make up rows that fit a config, convert data sets to input files",
    "fg": "show, run or measure feature generation",
    "doctor": "check this machine's installation",
}

_WITH_CONFIG = ("check", "train", "plan", "eval", "predict", "export", "fg", "importance")

_HELP = """\
usage: tzrec COMMAND ...

tzrec {version}: an open recommender framework.

commands:
{commands}

  tzrec COMMAND --help tells more. Start with: tzrec demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 ok, 1 bug, 2 config or usage, 3 data, 4 checkpoint, 5 memory,
        6 export, 130 Ctrl-C, 143 SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _dispatch(arguments))


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0
    if name in ("-V", "--version", "version"):
        print(f"tzrec {__version__}")
        return 0
    if name not in COMMANDS:
        kind = "flag" if name.startswith("-") else "command"
        raise UsageError(
            f"tzrec: unknown {kind} {name!r}{did_you_mean(name, COMMANDS)}",
            hint=f"commands: {', '.join(COMMANDS)}",
        )
    command = importlib.import_module(f"tzrec.cli.{name}")
    code: int | None = command.run(_parser(name, command).parse_args(arguments[1:]))
    return code or 0


def _parser(name: str, command: Any) -> Parser:
    parser = Parser(
        prog=f"tzrec {name}",
        description=command.DESCRIPTION,
        epilog=f"examples:\n{command.EXAMPLES}",
        elsewhere=_commands_with,
    )
    command.add_arguments(parser)
    return parser


def _commands_with(flag: str) -> list[str]:
    """Returns the commands that have a flag, as a user calls them."""
    found = []
    for name in _WITH_CONFIG:
        parser = _parser(name, importlib.import_module(f"tzrec.cli.{name}"))
        if flag in parser.flags():
            found.append(f"tzrec {name}")
    return found


def help_text() -> str:
    """Returns what ``tzrec --help`` shows."""
    commands = "\n".join(f"  {name:<11} {what}" for name, what in COMMANDS.items())
    return _HELP.format(version=__version__, commands=commands)
