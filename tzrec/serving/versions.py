"""Where a server finds its model: a directory, or the current one of several versions.

::

    ROOT/current            name of the version that answers, one line
    ROOT/versions/NAME/     one export, or one retriever
    ROOT/published.json     names, each before the one that took its place
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from tzrec import storage
from tzrec.errors import ServingError

CURRENT = "current"
VERSIONS = "versions"

_LONGEST = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclasses.dataclass(frozen=True)
class Pointer:
    """What is current.

    Attributes:
        version: its name; empty where the source is one directory without versions.
        directory: where it lies.
        stamp: another one each time that the pointer is written, where the file system tells.
    """

    version: str
    directory: str
    stamp: str = ""


def is_version_name(name: str) -> bool:
    """Returns whether a version may be called so: letters, digits, ``.``, ``_`` and ``-``."""
    return _NAME.fullmatch(name) is not None


class Source:
    """A directory to serve.

    Args:
        path: an export or a retriever, or a root with ``versions/`` and ``current``; local, or
            with a scheme.

    Attributes:
        path: as given, absolute where it is local.
        has_versions: it is such a root, so what is current may change.

    Raises:
        ServingError: there is no such directory, or it is a root without a current version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        text = os.fspath(path)
        is_remote = storage.is_remote(text)
        self.path = text.rstrip("/") if is_remote else str(Path(text).expanduser().absolute())
        if not storage.is_directory(self.path):
            raise ServingError(
                f"{self.path} is not a directory",
                hint="tzrec export makes one that can be served, tzrec publish one with versions",
            )
        has_current = storage.exists(f"{self.path}/{CURRENT}")
        self.has_versions = has_current and storage.is_directory(f"{self.path}/{VERSIONS}")
        if not has_current and storage.is_directory(f"{self.path}/{VERSIONS}"):
            raise ServingError(
                f"{self.path} has versions but none of them is current: {CURRENT} is missing",
                hint=f"tzrec publish EXPORT {self.path} adds one and makes it current",
            )

    def current(self) -> Pointer:
        """Reads which version is current; small and quick.

        Raises:
            ServingError: ``current`` holds no name of a version.
            OSError: it cannot be read.
        """
        if not self.has_versions:
            return Pointer("", self.path)
        file = f"{self.path}/{CURRENT}"
        system, inner = storage.file_system(file)
        stamp = ""
        if storage.is_local(system):
            with open(inner, "rb") as stream:  # stamp and text of one file, which may be replaced
                stat = os.fstat(stream.fileno())
                text = stream.read(_LONGEST)
            stamp = f"{stat.st_mtime_ns}-{stat.st_ino}"
        else:
            system.invalidate_cache()
            text = system.cat_file(inner)[:_LONGEST]
        name = text.decode("utf-8", "replace").strip()
        if not is_version_name(name):
            raise ServingError(
                f"{file} holds {name!r}, not the name of a version",
                hint="tzrec publish writes it",
            )
        return Pointer(name, f"{self.path}/{VERSIONS}/{name}", stamp)
