"""The browser page at ``/``: try the model by hand.

Plain HTML, CSS and JavaScript, shipped as they are: nothing to build, nothing loaded from
elsewhere, and the browser is told so by a content security policy. The page talks to the same
routes as any client (``v1/schema``, ``v1/predict``, ``v1/retrieve``, ``v1/embed``), by relative
addresses, so it works behind a prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

__all__ = ["FILES", "HEADERS", "page_routes", "routes_of"]

# Path → file of this package and content type. Only these can be asked for, so no path of a
# client ever becomes a path of the file system.
FILES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page/api.js": ("api.js", "text/javascript; charset=utf-8"),
    "/page/dom.js": ("dom.js", "text/javascript; charset=utf-8"),
    "/page/values.js": ("values.js", "text/javascript; charset=utf-8"),
    "/page/fields.js": ("fields.js", "text/javascript; charset=utf-8"),
    "/page/predict.js": ("predict.js", "text/javascript; charset=utf-8"),
    "/page/asking.js": ("asking.js", "text/javascript; charset=utf-8"),
    "/page/results.js": ("results.js", "text/javascript; charset=utf-8"),
    "/page/schema.js": ("schema.js", "text/javascript; charset=utf-8"),
    "/page/vectors.js": ("vectors.js", "text/javascript; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Asked again each time, answered with 304 while nothing has changed: a new release of the
    # server never runs with scripts of the old one.
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """Returns the routes of the page: ``/`` and the files it loads, all read here.

    They hold nothing of the model and need no token; what the page then asks the server for
    does.

    Raises:
        ImportError: starlette is not installed; the caller says how to install it.
    """
    return routes_of(__name__, FILES)


def routes_of(package: str, files: Mapping[str, tuple[str, str]]) -> list[Route]:
    """Returns routes of files of a package: path → name of the file and content type."""
    from starlette.routing import Route

    folder = resources.files(package)
    return [
        Route(path, _endpoint(folder.joinpath(name).read_bytes(), kind), methods=["GET"])
        for path, (name, kind) in files.items()
    ]


def _endpoint(body: bytes, media_type: str) -> Any:
    from starlette.responses import Response

    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {**HEADERS, "ETag": tag, "Content-Type": media_type}

    async def endpoint(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers)

    return endpoint
