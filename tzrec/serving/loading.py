"""Loads what a directory holds, wherever it lies."""

from __future__ import annotations

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
        ServingError: the storage does not give it.
        TzrecError: see `tzrec.serving.servable.load_servable`.
    """
    from tzrec.deploy.remote import copied
    from tzrec.serving.servable import load_servable

    if not storage.is_remote(directory):
        return load_servable(directory, version=version)
    files = copied(directory, storage.download_tree, cache_dir=copies)
    name = version or directory.rstrip("/").rpartition("/")[2]
    with files.named():
        servable = load_servable(files.directory, version=name)
    # Not every file is read while it is loaded.
    weakref.finalize(servable, files.close)
    return servable
