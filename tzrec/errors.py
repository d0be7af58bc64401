"""All errors that a user, a file or a peer can cause.

::

    TzrecError
    ├── ConfigError(ValueError)             exit 2   config file, flags
    ├── DataError(ValueError)               exit 3   input files, rows, columns
    ├── FeatureError(ValueError)            exit 3   a value that a feature cannot take
    ├── TrainingError(ArithmeticError)      exit 3   training went astray (non-finite loss)
    ├── CheckpointError(RuntimeError)       exit 4   saving and restoring
    ├── PlanError(RuntimeError)             exit 5   memory, sharding
    ├── ExportError(RuntimeError)           exit 6   export and parity
    ├── ServingError(RuntimeError)          exit 1
    ├── DistributedError(RuntimeError)      exit 1
    ├── Unsupported(NotImplementedError)    exit 2   not built (yet)
    └── MissingDependencyError(ImportError) exit 2   optional package

A message says what was received and what would be right; where it happened is added on the
way up with ``with at("feature_configs[3]"):``.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class TzrecError(Exception):
    """Base of all errors of tzrec.

    Every class accepts one string (worker processes rebuild exceptions so) and pickles.

    Args:
        message: what was received and what would be right.
        hint: how to cure it, if that is not obvious from the message.

    Attributes:
        location: where it happened, outermost part first.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.location: list[str] = []

    def __str__(self) -> str:
        where = "".join(f"{part}: " for part in [".".join(self.location)] if part)
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{where}{self.message}{hint}"


class ConfigError(TzrecError, ValueError):
    """The config or the command line is wrong."""

    exit_code = 2


class DataError(TzrecError, ValueError):
    """An input file, column or row is wrong.

    Attributes:
        row: number of the row in its batch, where only that is known.
    """

    exit_code = 3
    row: int | None = None


class FeatureError(TzrecError, ValueError):
    """A value cannot become the feature that the config describes."""

    exit_code = 3


class TrainingError(TzrecError, ArithmeticError):
    """Training cannot go on: a loss is not finite."""

    exit_code = 3


class CheckpointError(TzrecError, RuntimeError):
    """A checkpoint cannot be written, found or restored."""

    exit_code = 4


class PlanError(TzrecError, RuntimeError):
    """The model does not fit the machines."""

    exit_code = 5


class ExportError(TzrecError, RuntimeError):
    """An export failed, or differs from the model that was trained."""

    exit_code = 6


class ServingError(TzrecError, RuntimeError):
    """An exported model cannot be loaded or asked."""


class DistributedError(TzrecError, RuntimeError):
    """Processes of one job do not agree or do not answer."""


class Unsupported(TzrecError, NotImplementedError):  # noqa: N818 (a name of the interface)
    """The config asks for a part that this version does not have."""

    exit_code = 2


class MissingDependencyError(TzrecError, ImportError):
    """An optional package is needed and not installed."""

    exit_code = 2


@contextlib.contextmanager
def at(where: str) -> Iterator[None]:
    """Adds ``where`` in front of the location of any `TzrecError` that passes.

    Args:
        where: a part of a config path (``feature_configs[3]``) or a file name.
    """
    try:
        yield
    except TzrecError as error:
        error.location.insert(0, where)
        raise


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns ``; did you mean 'x'?`` for the candidate closest to ``name``, or ``""``."""
    options = list(candidates)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if not close:
        lowered = {option.lower(): option for option in options}
        close = [
            lowered[m] for m in difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
        ]
    return f"; did you mean {close[0]!r}?" if close else ""
