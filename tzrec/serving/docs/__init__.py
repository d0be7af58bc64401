"""The page ``/docs``: ``/openapi.json`` for people, with bodies to change and send.

Its files are part of the package and load nothing from elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tzrec.serving.page import routes_of

if TYPE_CHECKING:
    from starlette.routing import Route

__all__ = ["docs_routes"]

_FILES = {
    "/docs": ("index.html", "text/html; charset=utf-8"),
    "/page/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/page/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


def docs_routes() -> list[Route]:
    """Returns the routes of the page; style and helpers it shares with the page at ``/``."""
    return routes_of(__name__, _FILES)
