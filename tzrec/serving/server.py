"""One process that answers: the event loop, the application and the engine."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import IO, Any, NoReturn

from tzrec.errors import ConfigError, MissingDependencyError
from tzrec.serving.acceptor import Acceptor, Shares
from tzrec.serving.engine import Engine
from tzrec.serving.options import ServeOptions

logger = logging.getLogger("tzrec")

# Connections that wait to be accepted, of all workers together.
_BACKLOG = 2048
# Longer than load balancers keep idle connections, so that none sends into a closed one.
_KEEP_ALIVE_SECONDS = 75
_WATCH_SECONDS = 0.25
_CLOSE_SECONDS = 0.5
# How long a thread may hold the interpreter while another one waits for it. Python's 5 ms would
# show in every answer.
_SWITCH_SECONDS = 0.0005

STUCK = 70  # exit code of a worker that gave itself up


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that listens, for all workers.

    Raises:
        ConfigError: the port is in use, or the address is none of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol named, asyncio switches Nagle's algorithm off. Else the end of an answer
        # waits until the client confirms the head, which clients do up to 40 ms late.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host!r}: {error}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen at {host} port {port}: {error.strerror or error}",
            hint="is another server running there? --port 0 takes a free port",
        ) from error
    return sock


def address_of(sock: socket.socket) -> str:
    """Returns the URL of a socket that listens."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  listens everywhere: here is one of them
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def prepare(options: ServeOptions) -> None:
    """Makes the settings of a process that does nothing but serve."""
    import torch

    torch.set_num_threads(options.torch_threads)
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Modules stay: the collector need not look at them again.
    gc.collect()
    gc.freeze()


class Server:
    """Answers at a socket until it is told to stop.

    Args:
        engine: not started.
        sock: listens.
        on_ready: called once, with the servable, when the first version is loaded.
        accept_early: answer while the model is being loaded (``/ready`` says 503); else
            connections are left to other workers until then.
        place: number of this worker among several that share the socket; None for one alone.
            A worker ends when a model call is stuck, so that another one takes its place.
    """

    def __init__(
        self,
        engine: Engine,
        sock: socket.socket,
        *,
        on_ready: Callable[[Any], None] = lambda _: None,
        accept_early: bool = True,
        place: int | None = None,
    ) -> None:
        self._engine = engine
        self._socket = sock
        self._on_ready = on_ready
        self._accept_early = accept_early
        self._place = place
        self._http: Any = None
        self._error: BaseException | None = None
        self._stopping = asyncio.Event()
        self._ended = threading.Event()
        self._lifeline: IO[str] | None = None

    def run(self) -> int:
        """Serves until SIGTERM, SIGINT or `stop`; running requests are ended first.

        Returns:
            The exit code: 0, or `STUCK`.

        Raises:
            TzrecError: the first version cannot be loaded.
            MissingDependencyError: a package for serving is not installed.
        """
        config = self._config()
        try:
            asyncio.run(self._serve(config))
        finally:
            self._ended.set()
        is_stuck = self._engine.is_stuck
        self._engine.close(_CLOSE_SECONDS)  # what still runs has no client any more
        if self._error is not None:
            raise self._error
        return STUCK if is_stuck and self._place is not None else 0

    def stop(self) -> None:
        """Drains and ends; called a second time it drops what still runs. For the event loop."""
        if self._http is not None and self._stopping.is_set():
            self._http.force_exit = True
        self._engine.drain()
        self._stopping.set()

    def stop_at_end_of(self, stream: IO[str]) -> None:
        """Has the server stop when the stream ends; call before `run`."""
        self._lifeline = stream

    def _config(self) -> Any:
        try:
            import uvicorn

            from tzrec.serving.app import create_app
            from tzrec.serving.protocol import patient_protocol
        except ImportError as error:
            raise MissingDependencyError(
                f"serving needs more packages: {error}", hint="pip install 'tzrec[serve]'"
            ) from error
        options = self._engine.options
        config = uvicorn.Config(
            create_app(self._engine, options, is_full=self._is_full),
            http=patient_protocol(),
            ws="none",
            backlog=_BACKLOG,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(options.drain_seconds)),
        )
        config.load()
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        return config

    async def _serve(self, config: Any) -> None:
        import uvicorn

        loop = asyncio.get_running_loop()
        with _signals(loop, self.stop):
            self._engine.start()
            if self._lifeline is not None:
                loop.add_reader(self._lifeline, self._read_lifeline)
            watch = loop.create_task(self._watch())
            if not self._engine.options.threads:
                threading.Thread(target=self._watch_loop, name="watchdog", daemon=True).start()
            if not self._accept_early:
                await self._first_version()
            if not self._stopping.is_set():
                self._http = uvicorn.Server(config)
                self._http.capture_signals = contextlib.nullcontext
                await self._answer(config)
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def _answer(self, config: Any) -> None:
        """Takes connections until the server is told to stop, then ends what runs."""
        loop = asyncio.get_running_loop()
        acceptor = None
        if self._place is None:
            serving = loop.create_task(self._http.serve(sockets=[self._socket]))
        else:
            serving = loop.create_task(self._http.serve(sockets=[]))
            acceptor = self._acceptor(config, self._place)
            acceptor.start()
        await self._stopping.wait()
        if acceptor is not None:
            acceptor.close()
            self._socket.close()
        self._http.should_exit = True
        await serving

    def _is_full(self) -> bool:
        connections = self._http.server_state.connections if self._http is not None else ()
        return len(connections) > self._engine.options.max_connections

    def _acceptor(self, config: Any, place: int) -> Acceptor:
        options, state = self._engine.options, self._http.server_state
        shares = Shares(options.metrics_dir, options.workers)
        loop = asyncio.get_running_loop()

        def protocol() -> Any:
            made = config.http_protocol_class(
                config=config, server_state=state, app_state={}, _loop=loop
            )
            made.on_count = lambda: shares.set(place, len(state.connections))
            return made

        return Acceptor(self._socket, protocol, shares, place)

    def _read_lifeline(self) -> None:
        assert self._lifeline is not None
        if not os.read(self._lifeline.fileno(), 1024):
            asyncio.get_running_loop().remove_reader(self._lifeline)
            self.stop()

    async def _first_version(self) -> None:
        while not self._engine.is_loaded and not self._stopping.is_set():
            await asyncio.sleep(_WATCH_SECONDS / 5)

    async def _watch(self) -> None:
        """Tells when the first version is loaded, then how the engine is.

        Stops when no version can be loaded, or a call is stuck.
        """
        await self._first_version()
        if self._stopping.is_set():
            return
        try:
            self._engine.wait(0)
            self._on_ready(self._engine.servable)
        except BaseException as error:
            self._error = error
            self.stop()
        while not self._stopping.is_set():
            await asyncio.sleep(_WATCH_SECONDS)
            self._engine.tell_state()  # whichever worker is asked for metrics answers for all
            if self._place is not None and self._engine.is_stuck:
                logger.error("%s: this worker ends", self._engine.state().reason)
                self.stop()

    def _watch_loop(self) -> None:
        """Ends the process when a model call in the event loop is stuck: the loop cannot."""
        while not self._ended.wait(_WATCH_SECONDS):
            if self._engine.is_stuck:
                logger.error("%s: this process ends", self._engine.state().reason)
                end_process(STUCK)


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Any:
    is_main = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGTERM, signal.SIGINT) if is_main else ()
    for one in signals:
        loop.add_signal_handler(one, stop)
    try:
        yield
    finally:
        for one in signals:
            loop.remove_signal_handler(one)


def end_process(code: int) -> NoReturn:
    """Ends the process at once: a thread that hangs in a model call cannot hold it back."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    logging.shutdown()
    os._exit(code)
