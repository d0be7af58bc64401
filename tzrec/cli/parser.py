"""Strict command lines: unknown flags are errors with a suggestion."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tzrec.cli.console import UsageError
from tzrec.errors import did_you_mean


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are `UsageError`.

    Args:
        spellings: accept ``--model_dir`` for ``--model-dir``.
        elsewhere: flag → other commands that have it.
    """

    def __init__(
        self,
        *args: Any,
        spellings: bool = True,
        elsewhere: Callable[[str], list[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)
        self.spellings = spellings
        self.elsewhere = elsewhere

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parses; called for sub-commands too."""
        if args is not None and self.spellings:
            args = [_dashes(arg) for arg in args]
        return super().parse_known_args(args, namespace)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: Any = None
    ) -> argparse.Namespace:
        """Parses all arguments.

        Raises:
            UsageError: an argument is unknown, missing or malformed.
        """
        self._check_flags(list(args))
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            raise self._unknown(list(args), unknown)
        return parsed

    def _check_flags(self, args: list[str]) -> None:
        """Complains about an unknown flag before argparse misses the one that was meant."""
        known = set(self.flags())
        for arg in args:
            if arg == "--":
                break
            if arg.startswith("--"):
                flag = (_dashes(arg) if self.spellings else arg).partition("=")[0]
                if flag not in known:
                    raise self._unknown(args, [arg])

    def error(self, message: str) -> NoReturn:
        """Raises what argparse has to complain about."""
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice:
            options = [option.strip(" '") for option in choice[2].split(",")]
            message += did_you_mean(choice[1], options)
        raise UsageError(f"{self.prog}: {message}", hint=f"see {self.prog} --help")

    def _unknown(self, args: list[str], unknown: list[str]) -> UsageError:
        first = unknown[0]
        hint = f"see {self.prog} --help"
        if first.startswith("-"):
            name = first.partition("=")[0]
            others = self.elsewhere(_dashes(name)) if self.elsewhere else []
            if others:
                hint = f"{_dashes(name)} is a flag of {', '.join(others)}; {hint}"
            near = "" if others else did_you_mean(name, self.flags())
            return UsageError(f"{self.prog}: unknown flag {name}{near}", hint=hint)
        position = args.index(first) if first in args else 0
        before = _dashes(args[position - 1]) if self.spellings else args[position - 1]
        switches = [
            f for action in self._all_actions() if action.nargs == 0 for f in action.option_strings
        ]
        if position and before in switches:
            hint = f"{before} is a switch: give it alone"
        return UsageError(f"{self.prog}: unexpected argument {first!r}", hint=hint)

    def flags(self) -> list[str]:
        """Returns the flags, as they are spelt here."""
        return [flag for action in self._all_actions() for flag in action.option_strings]

    def _all_actions(self) -> list[argparse.Action]:
        found = list(self._actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    found += parser._actions
        return found


def _dashes(arg: str) -> str:
    """Returns ``--model-dir`` for ``--model_dir``; a value after ``=`` stays as it is."""
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg.partition("=")
    return name.replace("_", "-") + equals + value


def at_least(least: int) -> Callable[[str], int]:
    """Returns a type of a flag: whole numbers from ``least`` on."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is too small, must be at least {least}")
        return value

    return number


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds the config file, as CONFIG or as the interface's flag."""
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="config file (text or .json)")
    parser.add_argument("--pipeline-config-path", metavar="CONFIG", help=argparse.SUPPRESS)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds ``--checkpoint``."""
    parser.add_argument(
        "--checkpoint",
        "--checkpoint-path",
        dest="checkpoint_path",
        metavar="WHICH",
        help="latest (the default), best (by export_config), or a checkpoint directory",
    )


def add_edits(parser: argparse.ArgumentParser) -> None:
    """Adds ``--set``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="edits",
        metavar="PATH=VALUE",
        help="change the config: --set data_config.batch_size=256 "
        "(lists: feature_configs[0]..., [:], [id_feature.feature_name=user]); repeatable",
    )


def add_edit_json(parser: argparse.ArgumentParser) -> None:
    """Adds ``--edit-config-json``."""
    parser.add_argument(
        "--edit-config-json",
        metavar="JSON",
        help="change the config: '{\"data_config.batch_size\": 256}'",
    )


def config_of(args: argparse.Namespace, command: str) -> str:
    """Returns the config file that was given, one way or the other.

    Raises:
        UsageError: none was given, or two.
    """
    given = [path for path in (args.config, args.pipeline_config_path) if path]
    if len(given) != 1:
        what = "give one CONFIG, not two" if given else "which config? give the CONFIG file"
        raise UsageError(f"tzrec {command}: {what}", hint=f"see tzrec {command} --help")
    return str(given[0])
