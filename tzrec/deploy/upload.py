"""Uploads to a place where nothing is, by one process at a time."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tzrec import storage
from tzrec.errors import ExportError

_CLAIM = ".uploading-"
_ATTEMPTS = 5


def upload_new(local: str | Path, target: str, *, last: Sequence[str] = ()) -> None:
    """Copies a directory to a place where nothing is; all of it, or nothing.

    Object stores have no locks. So each process first writes a file with a name of its own, and
    then looks: of two that come at the same time, at least one sees the other and gives up. The
    place is the other one's then, and what is removed after a failure is one's own.

    Args:
        local: directory of this machine.
        target: path with a scheme.
        last: see `storage.upload_tree`.

    Raises:
        ExportError: something is there, or another process writes there.
        Exception: what the storage raises.
    """
    system, inner = storage.file_system(target)
    with _claimed(system, inner, target):
        try:
            storage.upload_tree(local, target, last=last)
        except BaseException:
            _remove_own(system, inner, Path(local))
            raise


@contextlib.contextmanager
def _claimed(system: Any, inner: str, target: str) -> Iterator[None]:
    name = f"{_CLAIM}{uuid.uuid4().hex}"
    try:
        _write_claim(system, inner, name)
        others = [found for found in storage.list_directory(target) if found != name]
        if others:
            raise ExportError(
                f"{target} exists already, or another process writes it (found: "
                f"{', '.join(others[:5])})",
                hint="name a new directory; or remove what a process left there that was killed",
            )
        yield
    except BaseException:
        _remove_claim(system, inner, name)
        _remove_empty(system, inner)
        raise
    _remove_claim(system, inner, name)


def _write_claim(system: Any, inner: str, name: str) -> None:
    for attempt in range(_ATTEMPTS):
        system.makedirs(inner, exist_ok=True)
        try:
            system.pipe_file(f"{inner}/{name}", b"see tzrec export\n")
            return
        except FileNotFoundError:
            # Another process gave up and removed the directory, which was empty.
            if attempt == _ATTEMPTS - 1:
                raise


def _remove_claim(system: Any, inner: str, name: str) -> None:
    with contextlib.suppress(Exception):
        system.rm_file(f"{inner}/{name}")


def _remove_own(system: Any, inner: str, local: Path) -> None:
    """Removes the files that were copied and their directories, and no others.

    The claim still stands, so that nobody else writes below it.
    """
    for folder, _, names in os.walk(local, topdown=False):
        below = os.path.normpath(f"{inner}/{os.path.relpath(folder, local)}")
        for name in names:
            with contextlib.suppress(Exception):  # not all were copied
                system.rm_file(f"{below}/{name}")
        if below != os.path.normpath(inner):
            _remove_empty(system, below)


def _remove_empty(system: Any, path: str) -> None:
    """Removes a directory in which nothing is, where the storage has directories at all.

    The storage refuses when another process has just written there.
    """
    if "/" not in path.strip("/"):
        return  # a bucket is not ours to remove
    with contextlib.suppress(Exception):
        system.invalidate_cache()
        if system.isdir(path) and not system.ls(path, detail=False):
            system.rmdir(path)
