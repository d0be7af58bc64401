"""What one serving process does, alone or as one of several workers of a `Supervisor`."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import socket
import sys
from typing import Any

from tzrec.serving.options import ServeOptions
from tzrec.utils.scratch import Scratch


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What a worker is told, by the first line of its input.

    The input stays open: its end means that the supervisor has gone.

    Attributes:
        source: directory to serve.
        options: of the server.
        socket_fd: file descriptor of the socket that listens.
        ready_fd: file descriptor to write a byte to when the model is loaded.
        place: number of the worker, from 0.
        is_first: it is the first of all: answers while it loads, and tells what it serves.
    """

    source: str
    options: ServeOptions
    socket_fd: int
    ready_fd: int
    place: int
    is_first: bool

    def to_json(self) -> str:
        """Returns one line of text."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Assignment:
        """Reads what `to_json` wrote."""
        body = json.loads(text)
        return cls(**body | {"options": ServeOptions(**body["options"])})


def run_server(
    source: str,
    options: ServeOptions,
    sock: socket.socket,
    *,
    told: Assignment | None = None,
) -> int:
    """Serves in this process until it is told to stop.

    Args:
        source: directory to serve.
        options: of the server.
        sock: listens.
        told: what a worker of several is told; None for a process alone.

    Returns:
        The exit code.

    Raises:
        TzrecError: the model cannot be loaded.
    """
    from tzrec.serving.engine import Engine
    from tzrec.serving.loading import load
    from tzrec.serving.server import Server, address_of, prepare
    from tzrec.serving.summary import summary

    prepare(options)
    url = address_of(sock)

    def on_ready(servable: Any) -> None:
        if told is None or told.is_first:
            print(summary(servable, url, options), flush=True)  # noqa: T201  of a command
        if told is not None:
            os.write(told.ready_fd, b"1")

    # The process ends without clearing up: its copies of remote models have to go before.
    with Scratch(options.metrics_dir or None, "tzrec-models-") as copies:
        server = Server(
            Engine(source, options, load=functools.partial(load, copies=str(copies))),
            sock,
            on_ready=on_ready,
            accept_early=told is None or told.is_first,
            place=None if told is None else told.place,
        )
        if told is not None:
            server.stop_at_end_of(sys.stdin)
        return server.run()


def run_worker(assignment: Assignment) -> int:
    """Serves as one of several; returns the exit code.

    Raises:
        TzrecError: the model cannot be loaded.
    """
    with socket.socket(fileno=assignment.socket_fd) as sock:
        return run_server(assignment.source, assignment.options, sock, told=assignment)
