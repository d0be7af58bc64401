"""`ServeOptions`: everything that can be set about a server."""

from __future__ import annotations

import dataclasses
import json
import math
import os

from tzrec.errors import ConfigError

# More model calls at a time than this only take turns at the interpreter.
_MOST_THREADS = 8
_LEAST = {
    "port": 0,
    "workers": 1,
    "threads": 0,
    "torch_threads": 1,
    "max_batch_rows": 1,
    "max_wait_ms": 0,
    "max_queue_rows": 1,
    "max_rows": 1,
    "max_text": 1,
    "max_depth": 1,
    "max_body_bytes": 1,
    "max_connections": 1,
    "drain_seconds": 0,
}
_POSITIVE = ("request_timeout", "reload_seconds", "watchdog_seconds")
# Timers of the system take no longer times, and none without end.
_LONGEST_SECONDS = 10**6
_SECONDS = (*_POSITIVE, "drain_seconds")


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """What a server does; limits are per request unless they say otherwise.

    Attributes:
        host: address to listen at; the default is reached from this machine only.
        port: port to listen at; 0 takes a free one.
        workers: processes that answer; each holds the model.
        threads: model calls at a time in each worker; 0 runs the model in the event loop.
        torch_threads: threads of one operation of the model.
        max_batch_rows: rows that go through the model at once: requests that wait are merged up
            to it, larger ones are cut.
        max_wait_ms: milliseconds that a request waits for others to be merged with while a
            thread is free; requests that find none free are merged anyway.
        max_queue_rows: rows of a worker that may wait; more are refused at once.
        request_timeout: seconds until a request is given up, from the moment it is read.
        max_body_bytes: size of a body.
        max_rows: rows of a request.
        max_text: characters of a text value.
        max_depth: how deep JSON values may nest.
        max_connections: connections of a worker; more are answered 503.
        token: what requests must carry as ``Authorization: Bearer``; empty asks for none.
        reload_seconds: how often to look whether another version is current.
        drain_seconds: how long running requests may go on after SIGTERM.
        watchdog_seconds: a model call that takes longer is stuck: the worker is not ready any
            more, and one of several is started again.
        metrics_dir: directory in which workers share their metrics and tell how many connections
            they have; empty with one worker.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    threads: int = 1
    torch_threads: int = 1
    max_batch_rows: int = 1024
    max_wait_ms: float = 0.0
    max_queue_rows: int = 16384
    request_timeout: float = 10.0
    max_body_bytes: int = 16 << 20
    max_rows: int = 100_000
    max_text: int = 65_536
    max_depth: int = 8
    max_connections: int = 1024
    token: str = dataclasses.field(default="", repr=False)
    reload_seconds: float = 2.0
    drain_seconds: float = 30.0
    watchdog_seconds: float = 60.0
    metrics_dir: str = ""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if not getattr(self, name) >= least:
                raise ConfigError(f"{name} {getattr(self, name)}: must be at least {least}")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}: must be above 0")
        for name in _SECONDS:
            if not getattr(self, name) <= _LONGEST_SECONDS:
                raise ConfigError(
                    f"{name} {getattr(self, name)}: must be at most {_LONGEST_SECONDS}"
                )
        if not math.isfinite(self.max_wait_ms) or self.max_wait_ms > 1000 * _LONGEST_SECONDS:
            raise ConfigError(f"max_wait_ms {self.max_wait_ms}: must be a number of milliseconds")
        if self.port > 65535:
            raise ConfigError(f"port {self.port}: must be at most 65535")
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            raise ConfigError("the token has characters that no HTTP header can carry")

    def to_json(self) -> str:
        """Returns the options as text for a worker; with the token."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ServeOptions:
        """Reads what `to_json` wrote."""
        return cls(**json.loads(text))


def default_threads(workers: int) -> int:
    """Returns how many model calls a worker makes at a time: its share of the cores."""
    return max(1, min(_MOST_THREADS, (os.cpu_count() or 1) // workers))
