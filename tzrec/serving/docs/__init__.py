"""The page ``/docs``: ``/openapi.json`` for people, with bodies to change and send.

Its files are part of the package and load nothing from elsewhere.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from tzrec.serving.page import HEADERS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

__all__ = ["docs_routes"]

_FILES = {
    "/docs": ("index.html", "text/html; charset=utf-8"),
    "/page/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/page/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


def docs_routes() -> list[Route]:
    """Returns the routes of the page; style and helpers it shares with the page at ``/``."""
    from starlette.routing import Route

    folder = resources.files(__name__)
    return [
        Route(path, _endpoint(folder.joinpath(name).read_bytes(), kind), methods=["GET"])
        for path, (name, kind) in _FILES.items()
    ]


def _endpoint(body: bytes, kind: str) -> Any:
    from starlette.responses import Response

    async def endpoint(_request: Request) -> Response:
        return Response(body, headers={**HEADERS, "Content-Type": kind})

    return endpoint
