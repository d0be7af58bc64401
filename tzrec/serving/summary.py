"""What a server says of itself when it starts."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tzrec.serving.options import ServeOptions

# An example longer than this hides the rest of the text.
_LONGEST = 1200
_MOST_NAMES = 8


def summary(servable: Any, url: str, options: ServeOptions) -> str:
    """Returns what is served, where, and how to try it.

    Args:
        servable: see `tzrec.serving.servable.Servable`.
        url: of the server.
        options: of the server.
    """
    lines = [f"{servable.model}, version {servable.version}, answers at {url}"]
    for name, signature in servable.signatures.items():
        inputs = _listed([column.name for column in signature.inputs])
        outputs = _listed([output.name for output in signature.outputs])
        lines.append(f"  POST /v1/{name.partition('/')[0]:<9} {inputs} -> {outputs}")
    lines.append("  GET  /v1/schema /health /ready /metrics /docs; a page to try it at /")
    lines.append(
        f"{options.workers} worker{'s' * (options.workers > 1)}, "
        f"{max(1, options.threads)} model call{'s' * (options.threads > 1)} at a time each"
        + (", with a token" if options.token else "")
    )
    return "\n".join([*lines, "try:", f"  {_example(servable, url, options)}"])


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _example(servable: Any, url: str, options: ServeOptions) -> str:
    token = ' -H "Authorization: Bearer $TOKEN"' if options.token else ""
    name, signature = next(iter(servable.signatures.items()))
    route, _, tower = name.partition("/")
    body = {"rows": [signature.example]} | ({"tower": tower} if tower else {})
    text = json.dumps(body, ensure_ascii=False)
    if len(text) > _LONGEST:
        return f"curl -s{token} {url}/v1/schema  # shows a row to send to /v1/{route}"
    return (
        f"curl -s{token} {url}/v1/{route} -H 'Content-Type: application/json' "
        f"-d {shlex.quote(text)}"
    )
