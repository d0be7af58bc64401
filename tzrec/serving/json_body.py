"""Bytes of a body → JSON, strictly: no NaN, no bad UTF-8, no key twice."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from tzrec.errors import MissingDependencyError
from tzrec.serving.errors import RequestError, invalid

try:
    import orjson
except ImportError as error:
    raise MissingDependencyError(
        f"the server needs orjson: {error}", hint="pip install 'tzrec[serve]'"
    ) from error

_SPACED_KEY = re.compile(rb'"[ \t\r\n]+:')
_NOT_FINITE = re.compile(rb"-?(?:NaN|Infinity|nan|inf)")


def parse_json(body: bytes) -> dict[str, Any]:
    """Returns the object that a body holds.

    Integers beyond 64 bits become floats; what reads them must refuse those.

    Raises:
        RequestError: 400 for what is no JSON, 422 for other JSON than an object.
    """
    if not body:
        raise RequestError(400, "empty_body", "the body is empty", hint='send {"rows": [{…}]}')
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _refused(error, body) from None
    if type(document) is not dict:
        raise invalid("wrong_type", f"the body is {kind_of(document)}, must be an object", "")
    known = _num_keys_known(document)
    # Counting is quick, so that reading again is for bodies with doubtful texts only.
    if body.count(b":") > known and _num_keys_written(body) > known:
        _refuse_repeated_keys(body)
    return document


def kind_of(value: Any) -> str:
    """Returns what JSON calls a value, with the value where that is short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return f"the number {value!r}"
    if isinstance(value, str):
        return f"the text {shorten(value)!r}"
    return "a list" if isinstance(value, list) else "an object"


def shorten(text: str, most: int = 40) -> str:
    """Returns a text, cut where it is long."""
    return text if len(text) <= most else f"{text[:most]}…"


def _refused(error: orjson.JSONDecodeError, body: bytes) -> RequestError:
    where = f"line {error.lineno}, column {error.colno}"
    if "UTF-8" in error.msg and "BOM" not in error.msg:
        return RequestError(400, "bad_utf8", f"the body is not UTF-8: {error.msg}")
    if "depth limit" in error.msg:
        return RequestError(400, "too_deep", f"JSON nests too deep at {where}")
    # The position counts characters; so far all of them were UTF-8.
    rest = body.decode("utf-8", "replace")[error.pos : error.pos + 10].encode()
    if "infinity" in error.msg or _NOT_FINITE.match(rest):
        return RequestError(
            400,
            "not_finite",
            f"a number that is not finite at {where}: JSON has no NaN and no infinity",
            hint="send null for a missing value",
        )
    return RequestError(400, "bad_json", f"the body is no JSON: {error.msg} at {where}")


def _num_keys_written(body: bytes) -> int:
    """Returns how many keys there are at most; texts that begin with a colon count too."""
    return body.count(b'":') + len(_SPACED_KEY.findall(body))


def _num_keys_known(document: dict[str, Any]) -> int:
    """Returns how many keys were kept at least: those of rows, not those inside of values."""
    count = len(document)
    for value in document.values():
        if type(value) is dict:
            count += len(value)
        elif type(value) is list:
            count += sum(len(row) for row in value if type(row) is dict)
    return count


def _refuse_repeated_keys(body: bytes) -> None:
    """Reads the body again, slowly.

    Raises:
        RequestError: an object has a key twice.
    """

    def check(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            twice = next(name for name, times in Counter(names).items() if times > 1)
            raise RequestError(
                400,
                "repeated_key",
                f"an object has the key {shorten(twice)!r} twice",
                field=shorten(twice),
            )

    try:
        json.loads(body, object_pairs_hook=check, parse_int=str, parse_float=str)
    except RecursionError:
        raise RequestError(400, "too_deep", "JSON nests too deep") from None
