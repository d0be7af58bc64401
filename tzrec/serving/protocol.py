"""uvicorn's protocol of HTTP, with bounds for clients that are slow, or send heads without end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tzrec.serving.errors import error_body

if TYPE_CHECKING:
    _Base = Any
else:
    _Base = object

# How long the head of a request may take.
_HEAD_SECONDS = 15
# So many times as long a client may take nothing of its answer; the system holds some of it.
_UNREAD_TIMES = 4
# Of the path and the headers of a request.
_HEAD_BYTES = 1 << 16
_LINGER_SECONDS = 2

_NOTHING = object()


def patient_protocol() -> Any:
    """Returns the class for uvicorn."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    return type("PatientProtocol", (_Patient, AutoHTTPProtocol), {})


class _Patient(_Base):
    """Goes before uvicorn's protocol among the bases of a class."""

    _head_bytes = 0  # of the headers that are whole
    _received = 0  # since the head began that is not whole yet
    _is_in_head = False
    _is_refused = False
    _unsent = 0
    _unread_times = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.on_count()
        self._look_later(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)
        self.on_count()

    def on_count(self) -> None:
        """Called when there is a connection more or less."""

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        super().data_received(data)
        if self._is_in_head and not self._is_refused:
            self._received += len(data)
            if self._received > 2 * _HEAD_BYTES:
                self.send_400_response("")

    # The next four are called by httptools; h11 has a bound of its own.

    def on_message_begin(self) -> None:
        self._is_in_head, self._head_bytes, self._received = True, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _HEAD_BYTES:
            raise ValueError("the parser passes it on as a bad request")

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None:  # an answer that comes now would be cut into this one
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        is_long = max(self._head_bytes, self._received) > _HEAD_BYTES
        self.transport.write(_refusal(is_long=is_long))
        self.transport.write_eof()
        self._is_refused = True
        # What still comes is read: closed at once, the answer would not reach the client.
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _look_later(self, seen: Any) -> None:
        self._timer = self.loop.call_later(_HEAD_SECONDS, self._look, seen)

    def _look(self, seen: Any) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._unread_times += 1
        if not unsent or unsent != self._unsent:
            self._unsent, self._unread_times = unsent, 0
        if self._unread_times >= _UNREAD_TIMES:
            self.transport.abort()
            return
        # Between two requests uvicorn has a timer of its own, until the first byte comes.
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering or self.timeout_keep_alive_task is not None:
            self._look_later(_NOTHING)
            return
        if seen is self.cycle:
            self.transport.close()
        self._look_later(self.cycle)


def _refusal(*, is_long: bool) -> bytes:
    """Returns the whole answer to what is no request of HTTP, or has too long a head."""
    status, error = (
        (
            "431 Request Header Fields Too Large",
            error_body("head_too_large", f"path and headers have more than {_HEAD_BYTES} bytes"),
        )
        if is_long
        else ("400 Bad Request", error_body("bad_http", "this is no HTTP/1.1 request"))
    )
    body = json.dumps(error)
    head = ("content-type: application/json", f"content-length: {len(body)}", "connection: close")
    return "\r\n".join([f"HTTP/1.1 {status}", *head, "", body]).encode()
