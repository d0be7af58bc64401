"""The terminal side of a command: logging, silence of libraries, errors and exit codes."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable

from tzrec.errors import ConfigError, PlanError, TzrecError, Unsupported
from tzrec.options import current_rank

logger = logging.getLogger("tzrec")

INTERRUPTED = 130
BUG = FAILED = 1

# What the file system has against it is no mistake of the program.
_NOT_OURS = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EISDIR,
    errno.EMFILE,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)

# Every process of a job finds these out for itself.
_SAME_ON_ALL = (ConfigError, PlanError, Unsupported)

_LOUD = ("torch", "torchrec", "fbgemm_gpu", "fsspec", "numba", "tensorboard", "iopath")


class UsageError(ConfigError):
    """The command line is wrong."""


def setup_logging(level: str = "INFO") -> None:
    """Sends the logger ``tzrec`` to stderr as ``[time][LEVEL] message``.

    Args:
        level: level name. Calling again only changes the level.
    """
    logger.setLevel(level)
    logger.propagate = False
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        handler = _StderrHandler()
        handler.setFormatter(
            logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s", "%Y-%m-%d %H:%M:%S")
        )
        logger.addHandler(handler)


class _StderrHandler(logging.StreamHandler):
    """Writes to what ``sys.stderr`` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def quiet_libraries() -> None:
    """Leaves out what libraries print that a user cannot act on."""
    if logger.isEnabledFor(logging.DEBUG):
        return
    warnings.filterwarnings("ignore")
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)


def run_command(function: Callable[[], int | None]) -> int:
    """Runs a command and turns what it raises into a message and an exit code.

    A `TzrecError` is shown without a traceback (with one at log level DEBUG). Errors of the
    config and the plan are the same on every process of a job, so only rank 0 shows them.

    Args:
        function: the command; what it returns is the exit code, None means 0.

    Returns:
        The exit code.
    """
    try:
        return function() or 0
    except TzrecError as error:
        rank = current_rank()
        if rank == 0 or not isinstance(error, _SAME_ON_ALL):
            if logger.isEnabledFor(logging.DEBUG):
                traceback.print_exc()
            prefix = f"[rank {rank}] " if rank else ""
            _say(f"{prefix}{error}" if str(error) else f"{prefix}{type(error).__name__}")
        return error.exit_code
    except KeyboardInterrupt as stop:
        if current_rank() == 0:
            _say(str(stop) or "interrupted")
        return getattr(stop, "exit_code", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone (`tzrec ... | head`); keep Python from saying so.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _NOT_OURS:
            return _bug()
        if logger.isEnabledFor(logging.DEBUG):
            traceback.print_exc()
        place = f": {error.filename}" if error.filename else ""
        _say(f"{error.strerror}{place}")
        return FAILED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception:
        return _bug()


def _bug() -> int:
    traceback.print_exc()
    _say("This is a bug in tzrec, not in your config. Please report the lines above.")
    return BUG


def _say(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
