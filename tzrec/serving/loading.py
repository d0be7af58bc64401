"""Loads what a directory holds, wherever it lies."""

from __future__ import annotations

import tempfile
import weakref
from typing import Any

from tzrec import storage


def load(directory: str, *, version: str = "", copies: str | None = None) -> Any:
    """Loads a servable, by a copy of it where it is remote.

    Args:
        directory: local, or with a scheme.
        version: its name, see `tzrec.serving.servable.load_servable`.
        copies: directory for the copy, which goes with the servable; default that of temporary
            files.

    Raises:
        TzrecError: see `tzrec.serving.servable.load_servable`.
    """
    from tzrec.serving.servable import load_servable

    if not storage.is_remote(directory):
        return load_servable(directory, version=version)
    copy = tempfile.TemporaryDirectory(prefix="tzrec-model-", dir=copies)
    storage.download_tree(directory, copy.name)
    name = version or directory.rpartition("/")[2]
    servable = load_servable(copy.name, version=name)
    # Not every file is read while it is loaded.
    weakref.finalize(servable, copy.cleanup)
    return servable
