"""From a trained model to a directory that scores rows, and the code that loads it again."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tzrec.deploy.options import ExportOptions
    from tzrec.deploy.predictor import Predictor

__all__ = ["ExportOptions", "Predictor"]

_HOMES = {"ExportOptions": "tzrec.deploy.options", "Predictor": "tzrec.deploy.predictor"}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: ``import tzrec.deploy`` loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
