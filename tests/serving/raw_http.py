"""Bytes for a server of HTTP that no ordinary client sends, and what must come back."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import numpy as np

_HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes, more: bytes = b"") -> bytes:
    """Returns an ordinary request."""
    return _HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes, size: int = 5, end: bytes = b"0\r\n\r\n") -> bytes:
    """Returns a request whose body comes in chunks."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    encoded = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + encoded + end


def talk(port: int, data: bytes, answers: int = 1, seconds: float = 20) -> list[tuple[int, bytes]]:
    """Sends bytes; returns statuses and bodies of so many answers, fewer if the server closes."""
    found: list[tuple[int, bytes]] = []
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(OSError):  # it may answer before it has read all
            connection.sendall(data)
        received = b""
        while len(found) < answers:
            part = connection.recv(1 << 16)
            received += part
            received = _take_answers(received, found, has_bodies=not data.startswith(b"HEAD"))
            if not part:
                break
    return found


def _take_answers(
    received: bytes, found: list[tuple[int, bytes]], *, has_bodies: bool = True
) -> bytes:
    while b"\r\n\r\n" in received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        length = re.search(rb"content-length: (\d+)", head)
        size = int(length[1]) if length and has_bodies else 0
        if len(rest) < size:
            break
        if status >= 200:
            found.append((status, rest[:size]))
        received = rest[size:]
    return received


def cases(body: bytes) -> Iterator[tuple[str, bytes, list[int]]]:
    """Yields name, bytes and statuses of the answers; ``body`` is one that is scored."""
    good = post(body)
    chunk = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    yield "plain", good, [200]
    yield "pipelined", good + post(b"{") + GET + good, [200, 400, 200, 200]
    yield "pipelined_many", GET * 500, [200] * 500
    yield "chunked", chunked(body), [200]
    yield "chunks_of_one", chunked(body, 1), [200]
    yield "trailers", chunked(body, end=b"0\r\n" + b"X: y\r\n" * 1000 + b"\r\n"), [200]
    yield "expect", post(body, b"Expect: 100-continue\r\n"), [200]
    yield "newlines_first", b"\r\n" * 1000 + GET, [200]
    for name, data in {
        "chunk_size": chunk + b"zz\r\nabc\r\n0\r\n\r\n",
        "chunk_size_huge": chunk + b"f" * 17 + b"\r\nabc",
        "chunk_size_negative": chunk + b"-5\r\nabcde\r\n0\r\n\r\n",
        "chunk_that_is_longer": chunk + b"2\r\nabcdef\r\n0\r\n\r\n",
        "chunked_with_length": chunked(body).replace(b"Host", b"Content-Length: 5\r\nHost", 1),
        "two_lengths": post(body, b"Content-Length: 6\r\n"),
        "transfer_unknown": chunked(body).replace(b"chunked", b"xyz", 1),
        "length_negative": _HEAD + b"Content-Length: -1\r\n\r\nabc",
        "length_text": _HEAD + b"Content-Length: abc\r\n\r\nabc",
        "length_huge": _HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nabc",
        "upgrade": post(body, b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        "nul_in_header": b"GET /health HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        "no_colon": b"GET /health HTTP/1.1\r\nHost x\r\n\r\n",
        "folded": b"GET /health HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
        "no_path": b"GET  HTTP/1.1\r\n\r\n",
        "no_ascii": b"GET /\xff HTTP/1.1\r\n\r\n",
        "unknown_method": b"FOO / HTTP/1.1\r\n\r\n",
        "endless_method": b"G" * 200_000,
        "version": b"GET /health HTTP/9.9\r\n\r\n",
        "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "random": np.random.default_rng(0).bytes(3000),
    }.items():
        yield name, data, [400]
    yield "length_large", _HEAD + b"Content-Length: 99999999999\r\n\r\nabc", [413]
    yield "body_large", post(b" " * (17 << 20)) + GET, [413, 200]
    yield "body_large_in_chunks", chunked(b" " * (17 << 20), 1 << 16) + GET, [413, 200]
    yield "compressed", post(body, b"Content-Encoding: gzip\r\n"), [415]
    yield "body_too_short", _HEAD + b"Content-Length: 9999\r\n\r\n" + body, [408]
    yield "chunks_without_end", chunked(body, end=b""), [408]
    headers = b"".join(b"X%d: y\r\n" % number for number in range(100_000))
    yield "many_headers", b"GET /health HTTP/1.1\r\n" + headers + b"\r\n", [431]
    for name, head in {
        "long_header": b"GET /health HTTP/1.1\r\nX: " + b"a" * 2_000_000,
        "long_name": b"GET /health HTTP/1.1\r\n" + b"a" * 2_000_000,
        "long_path": b"GET /" + b"a" * 2_000_000,
        "header_above_bound": b"GET /health HTTP/1.1\r\nX: " + b"a" * 66_000 + b"\r\n\r\n",
    }.items():
        yield name, head, [431]
    yield "header_below_bound", b"GET /health HTTP/1.1\r\nX: " + b"a" * 60_000 + b"\r\n\r\n", [200]
    for method in (b"OPTIONS", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"CONNECT", b"GET", b"HEAD"):
        yield method.decode(), method + b" /v1/predict HTTP/1.1\r\n\r\n", [405]
    for path in (
        b"/page/../../../../etc/passwd",
        b"/page/%2e%2e/%2e%2e/etc/passwd",
        b"/page/..%2f..%2fetc/passwd",
        b"/page/..\\..\\x",
        b"//etc/passwd",
        b"/page//etc/passwd",
        b"/page/%00",
        b"/%ff",
        b"/v1/predict/",
        b"/" + b"a" * 60_000,
    ):
        yield path[:40].decode(), b"GET " + path + b" HTTP/1.1\r\n\r\n", [404]
