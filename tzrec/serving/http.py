"""Bodies in, answers out, and what goes wrong on the way: the parts that know no model."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import orjson

from tzrec.serving.arrow import ARROW_STREAM
from tzrec.serving.errors import RequestError, error_body, of_fault
from tzrec.serving.faults import Fault, Overloaded, TooManyConnections
from tzrec.serving.metrics import Metrics
from tzrec.serving.options import ServeOptions

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("tzrec")

JSON = "application/json"
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_OTHER_ROUTE = "other"
# What tells how the server is.
_ALWAYS = ("/health", "/ready", "/metrics")
# Bytes of all bodies that requests hold at a time, as a multiple of the largest one.
_MOST_BODIES = 16
_CLOSED_BY_CLIENT = 499


def response(
    body: bytes, status: int = 200, *, kind: str = JSON, headers: Mapping[str, str] | None = None
) -> Response:
    """Returns an answer that is neither kept nor guessed at."""
    from starlette.responses import Response

    return Response(body, status, {**HEADERS, **(headers or {})}, media_type=kind)


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Returns JSON; arrays of NumPy are written as they are, NaN as null."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return response(body, status, headers=headers)


def error_response(error: RequestError) -> Response:
    """Returns the answer that an error is."""
    return json_response(error.body(), error.status, error.headers)


class Bodies:
    """Counts the bytes of the bodies that are held, so that many together do not fill the memory.

    Args:
        options: with the size of the largest body.
    """

    def __init__(self, options: ServeOptions) -> None:
        self._most = _MOST_BODIES * options.max_body_bytes
        self._held = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Yields what a request calls for each part of its body; all are let go at the end.

        That raises `Overloaded` where the bodies would be too large together.
        """
        own = 0

        def take(size: int) -> None:
            nonlocal own
            if self._held + size > self._most:
                raise Overloaded(
                    "the requests that are being answered are too large together",
                    hint="try again later",
                    retry_after=1,
                )
            self._held += size
            own += size

        try:
            yield take
        finally:
            self._held -= own


async def read_body(request: Request, options: ServeOptions, take: Callable[[int], None]) -> bytes:
    """Returns the body of a request, and never holds more of it than is allowed.

    Args:
        request: whose body has not been read.
        options: limits.
        take: see `Bodies.hold`.

    Raises:
        RequestError: 408, 413 or 415.
        Overloaded: the bodies of all requests are too large together.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "compressed", "the body is compressed", hint="send it as it is")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > options.max_body_bytes:
        raise _too_large(options)
    chunks: list[bytes] = []
    size = 0
    try:
        with anyio.fail_after(options.request_timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size > options.max_body_bytes:
                    raise _too_large(options)
                take(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise RequestError(
            408,
            "timeout",
            f"the body did not arrive within {options.request_timeout:g} s",
            headers={"Connection": "close"},
        ) from None
    if not size and "upgrade" in request.headers:
        raise RequestError(
            400,
            "upgrade",
            "a body that comes with a request for another protocol is not read",
            hint="send no Upgrade header; in Java: HttpClient.Version.HTTP_1_1",
            headers={"Connection": "close"},
        )
    return b"".join(chunks)


@contextlib.contextmanager
def unless_gone(request: Request) -> Iterator[None]:
    """Gives up what is done inside when the client goes; the body has been read.

    Raises:
        ClientDisconnect: it has gone.
    """
    from starlette.requests import ClientDisconnect

    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    with anyio.CancelScope() as scope:
        waiting = asyncio.ensure_future(wait())
        try:
            yield
        finally:
            waiting.cancel()
    if scope.cancelled_caught:
        raise ClientDisconnect


def _too_large(options: ServeOptions) -> RequestError:
    return RequestError(
        413,
        "body_too_large",
        f"the body is larger than {options.max_body_bytes} bytes",
        hint="send several requests",
        # The connection stays open, and what still comes is dropped: if it were closed, clients
        # that are sending would see that it is, and not this answer.
    )


def content_type(request: Request, known: Sequence[str] = (JSON, ARROW_STREAM)) -> str:
    """Returns the type of a body.

    Raises:
        RequestError: 415, it is none of those known.
    """
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind not in known or (kind == JSON and charset not in ("", "charset=utf-8")):
        given = request.headers.get("content-type", "")[:80]
        raise RequestError(
            415,
            "unsupported_media_type",
            f"the content type is {given!r}, must be {' or '.join(known)}",
            hint=f"with curl: -H 'Content-Type: {JSON}'",
        )
    return kind


def accepted_answer(request: Request) -> str:
    """Returns the type that a client wants: JSON, unless it prefers Arrow.

    Raises:
        RequestError: 406, it takes neither.
    """
    accept = request.headers.get("accept", "*/*")
    best, chosen = 0.0, ""
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        if weight > best and kind in (JSON, ARROW_STREAM, "application/*", "*/*"):
            best, chosen = weight, ARROW_STREAM if kind == ARROW_STREAM else JSON
    if not chosen:
        raise RequestError(
            406, "not_acceptable", f"answers are {JSON} or {ARROW_STREAM}, not {accept[:80]!r}"
        )
    return chosen


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


class Guard:
    """Outermost layer: tokens, the answer to faults of our own, and the time of each request.

    Args:
        app: the rest.
        options: with the token.
        metrics: told of each request.
        protected: paths, and beginnings of paths that end with ``/``, that need the token.
        is_full: whether there are more connections than may be; only what watches the server is
            answered then.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        options: ServeOptions,
        metrics: Metrics,
        protected: Sequence[str],
        is_full: Callable[[], bool],
    ) -> None:
        self._app = app
        self._is_full = is_full
        self._token = f"Bearer {options.token}".encode() if options.token else b""
        self._metrics = metrics
        self._protected = frozenset(path for path in protected if not path.endswith("/"))
        self._below = tuple(path for path in protected if path.endswith("/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = _CLOSED_BY_CLIENT

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.on_flight(1)
        try:
            if self._is_full() and scope["path"] not in _ALWAYS:
                self._metrics.on_fault(TooManyConnections.code)
                await _full()(scope, receive, noting_send)
            elif self._is_refused(scope):
                await _unauthorized()(scope, receive, noting_send)
            else:
                await self._app(scope, receive, noting_send)
        except Exception:
            number = secrets.token_hex(6)
            logger.exception("request %s (%s) failed", number, scope["path"])
            if status != _CLOSED_BY_CLIENT:
                raise
            await _internal(number)(scope, receive, noting_send)
        finally:
            self._metrics.on_flight(-1)
            route = getattr(scope.get("route"), "path", _OTHER_ROUTE)
            self._metrics.on_request(route, status, time.perf_counter() - started)

    def _is_refused(self, scope: Scope) -> bool:
        path = scope["path"]
        if not self._token or not (path in self._protected or path.startswith(self._below)):
            return False
        given = next((v for name, v in scope["headers"] if name == b"authorization"), b"")
        return not hmac.compare_digest(given, self._token)


def _unauthorized() -> Response:
    return error_response(
        RequestError(
            401,
            "unauthorized",
            "this server needs a token",
            hint="send the header Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )
    )


def _full() -> Response:
    fault = TooManyConnections(
        "this worker has as many connections as it may", hint="try again later", retry_after=1
    )
    error = of_fault(fault)
    error.headers["Connection"] = "close"
    return error_response(error)


def _internal(number: str) -> Response:
    body = error_body(
        "internal", f"something went wrong in the server; its log says more under {number}"
    )
    return json_response(body, 500)


def _on_http_error(request: Request, error: HTTPException) -> Response:
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    path = request.url.path[:80]
    messages = {404: f"there is no {path}", 405: f"{path} does not take {request.method[:20]}"}
    message = messages.get(error.status_code, error.detail)
    headers = dict(error.headers or {})
    hint = "GET /openapi.json lists what there is" if error.status_code == 404 else ""
    return error_response(
        RequestError(error.status_code, code, message, hint=hint, headers=headers)
    )


async def _handle_http_error(request: Request, error: HTTPException) -> Response:
    return _on_http_error(request, error)


async def _handle_request_error(_request: Request, error: RequestError) -> Response:
    return error_response(error)


async def _handle_fault(metrics: Metrics, _request: Request, error: Fault) -> Response:
    if not error.is_counted:  # those before the queue
        metrics.on_fault(error.code)
    return error_response(of_fault(error))


async def _handle_disconnect(_request: Request, _error: Exception) -> Response:
    return response(b"", _CLOSED_BY_CLIENT)


def exception_handlers(metrics: Metrics) -> dict[Any, Any]:
    """Returns exception class → what answers it; faults are counted."""
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    return {
        HTTPException: _handle_http_error,
        RequestError: _handle_request_error,
        Fault: functools.partial(_handle_fault, metrics),
        ClientDisconnect: _handle_disconnect,
    }
