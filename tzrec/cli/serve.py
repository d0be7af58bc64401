"""``tzrec serve``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from tzrec.cli.console import UsageError
from tzrec.cli.job import start
from tzrec.cli.parser import at_least
from tzrec.errors import ConfigError
from tzrec.options import set_metrics_directory, set_thread_counts
from tzrec.serving.options import ServeOptions, default_threads
from tzrec.utils.scratch import Scratch

DESCRIPTION = (
    "Answers HTTP requests with a model. DIR is an export (`tzrec export`), a retriever\n"
    "(`tzrec index`), or a directory of versions (`tzrec publish`), of which the current one\n"
    "answers: another one that becomes current is taken up while the server runs.\n"
    "SIGTERM and Ctrl-C end it when the running requests are answered."
)
EXAMPLES = """\
  tzrec serve run/export
  tzrec serve models --host 0.0.0.0 --port 80 --workers 4 --token-file token.txt
  tzrec serve run/retriever --port 0"""

WORKER = (sys.executable, "-m", "tzrec.cli.serve_worker")

_DEFAULTS = ServeOptions()
# Flag → (type, metavar, what it says); names are those of `ServeOptions`.
_BOUNDS: dict[str, tuple[Any, str, str]] = {
    "torch_threads": (at_least(1), "N", "threads of one operation of the model"),
    "max_batch_rows": (at_least(1), "N", "rows that go through the model at once"),
    "max_wait_ms": (float, "MS", "how long a request waits for others to be merged with"),
    "max_queue_rows": (at_least(1), "N", "rows of a worker that may wait; more get 429"),
    "request_timeout": (float, "S", "seconds until a request gets 504"),
    "max_body_bytes": (at_least(1), "N", "size of a request"),
    "max_rows": (at_least(1), "N", "rows of a request"),
    "max_text": (at_least(1), "N", "characters of a text value"),
    "max_depth": (at_least(1), "N", "how deep JSON may nest"),
    "max_connections": (at_least(1), "N", "connections of a worker; more get 503"),
    "reload_seconds": (float, "S", "how often to look for another current version"),
    "drain_seconds": (float, "S", "how long running requests may go on after SIGTERM"),
    "watchdog_seconds": (float, "S", "a model call that takes longer is stuck"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec serve``."""
    parser.add_argument("directory", metavar="DIR", help="what to serve")
    parser.add_argument(
        "--host",
        default=_DEFAULTS.host,
        metavar="ADDRESS",
        help="address to listen at (%(default)s: this machine only)",
    )
    parser.add_argument(
        "--port",
        type=at_least(0),
        default=_DEFAULTS.port,
        metavar="PORT",
        help="port to listen at (%(default)s); 0 takes a free one",
    )
    parser.add_argument(
        "--workers",
        type=at_least(1),
        default=_DEFAULTS.workers,
        metavar="N",
        help="processes that answer (%(default)s); each holds the model",
    )
    parser.add_argument(
        "--threads",
        type=at_least(0),
        metavar="T",
        help="model calls at a time in each worker (default: its share of the cores); 0 runs the "
        "model between requests: the lowest latency where each core has a worker",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="ask for the token in this file: Authorization: Bearer TOKEN",
    )
    for name, (kind, metavar, text) in _BOUNDS.items():
        default = getattr(_DEFAULTS, name)
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            default=None if name == "torch_threads" else default,
            metavar=metavar,
            help=f"{text} ({default})",
        )


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or Ctrl-C."""
    options = _options(args)
    start()
    options = dataclasses.replace(
        options, torch_threads=set_thread_counts(args.torch_threads, options.torch_threads)
    )
    from tzrec.serving.server import address_of, bind
    from tzrec.serving.versions import Source

    Source(args.directory).current()  # what cannot be served at all answers at once
    sock = bind(options.host, options.port)
    options = dataclasses.replace(options, port=sock.getsockname()[1])
    print(f"loading {args.directory} for {address_of(sock)}", flush=True)
    serve = _supervise if options.workers > 1 else _serve_alone
    with sock:
        return serve(args.directory, options, sock)


def _options(args: argparse.Namespace) -> ServeOptions:
    given = {name: getattr(args, name) for name in _BOUNDS if getattr(args, name) is not None}
    return ServeOptions(
        host=args.host,
        port=args.port,
        workers=args.workers,
        threads=default_threads(args.workers) if args.threads is None else args.threads,
        token=_token(args.token_file),
        **given,
    )


def _token(path: str | None) -> str:
    if path is None:
        return ""
    try:
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"tzrec serve: the token file {path} cannot be read: {error}") from error
    if not token:
        raise ConfigError(f"the token file {path} is empty")
    return token


def _serve_alone(directory: str, options: ServeOptions, sock: Any) -> int:
    from tzrec.serving.server import end_process
    from tzrec.serving.worker import run_server

    end_process(run_server(directory, options, sock))


def _supervise(directory: str, options: ServeOptions, sock: Any) -> int:
    from tzrec.serving.supervisor import Supervisor

    with Scratch(None, "tzrec-serve-") as path:
        shared = str(path)
        set_metrics_directory(shared)
        return Supervisor(
            directory,
            dataclasses.replace(options, metrics_dir=shared),
            sock,
            command=WORKER,
            on_death=lambda pid: _forget_metrics(shared, pid),
        ).run()


def _forget_metrics(shared: str, pid: int) -> None:
    """Leaves a process that has ended out of the gauges; what it counted stays."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid, shared)
