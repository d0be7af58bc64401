"""Feature generation: raw columns → ids and numbers, with NumPy, Arrow and numba, no torch."""

from __future__ import annotations

from typing import Any

__all__ = ["FgHandler"]


def __getattr__(name: str) -> Any:
    """Imports `FgHandler` when it is asked for."""
    if name == "FgHandler":
        from tzrec.fg.handler import FgHandler

        return FgHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
