"""What is wrong with a request, as an answer of HTTP that names the field.

::

    {"error": {"code": "wrong_type", "message": "…", "field": "rows[3].price", "hint": "…"}}
"""

from __future__ import annotations

import re
from typing import Any

from tzrec.errors import DataError, FeatureError, TzrecError
from tzrec.serving.faults import Fault

_NAMED = re.compile(r"\b(?:column|feature|input) '([^']+)'")
# Where feature generation was, and the columns that it read.
_GENERATED = re.compile(r"feature (\S+) of (.+)")
_ROW = re.compile(r"\brow (\d+)\b")


class RequestError(Exception):
    """A request that cannot be answered, through a fault of its client.

    Args:
        status: of HTTP.
        code: name of the fault, for programs.
        message: what was received and what would be right.
        field: where in the request, ``rows[3].price``; "" where that says nothing.
        hint: how to cure it.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str = "",
        hint: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.hint = hint
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Returns the JSON of the answer."""
        return error_body(self.code, self.message, field=self.field, hint=self.hint)


def error_body(code: str, message: str, *, field: str = "", hint: str = "") -> dict[str, Any]:
    """Returns the JSON of any answer that is an error."""
    return {"error": {"code": code, "message": message, "field": field or None, "hint": hint}}


def invalid(code: str, message: str, field: str, hint: str = "") -> RequestError:
    """Returns the error of a value that is not as the schema says: 422."""
    return RequestError(422, code, message, field=field, hint=hint)


def of_fault(fault: Fault) -> RequestError:
    """Returns the answer of a server that cannot answer now."""
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return RequestError(fault.status, fault.code, fault.message, hint=fault.hint, headers=headers)


def of_data(error: TzrecError, where: Any) -> RequestError | None:
    """Returns the answer for a value that the model refused; None if it is no fault of a value.

    Args:
        error: what the model raised.
        where: (column, row or None) → place in the request, or "" for a name that is none of
            its columns.
    """
    if not isinstance(error, (DataError, FeatureError)):
        return None
    text = ": ".join([*error.location, error.message])
    row = getattr(error, "row", None)
    found = _ROW.search(text)
    if row is None and found:
        row = int(found[1])
    names = _NAMED.findall(text)
    for place in filter(None, map(_GENERATED.fullmatch, error.location)):
        names += [*place[2].split(", "), place[1]]
    field = next(filter(None, (where(name, row) for name in names)), "")
    return invalid("invalid_value", text, field, error.hint)
