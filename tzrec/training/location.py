"""Where a run lives: a local `Path`, or a `RemotePath` when the path has a scheme.

Both have ``name``, ``parent`` and ``/``, and `tzrec.storage` takes both.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tzrec import storage


@dataclass(frozen=True)
class RemotePath:
    """A path with a scheme (``s3://bucket/run``).

    Attributes:
        url: the path, without a slash at its end.
    """

    url: str

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """The path without its last part."""
        return RemotePath(self.url.rpartition("/")[0])

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}") if name else self

    def __fspath__(self) -> str:
        return self.url

    def __str__(self) -> str:
        return self.url


Location: TypeAlias = Path | RemotePath


def location(path: str | os.PathLike[str]) -> Location:
    """Returns a path as a `Location`; ``file://`` paths are local."""
    if isinstance(path, Path | RemotePath):
        return path
    text = os.fspath(path)
    if storage.is_remote(text):
        return RemotePath(text.rstrip("/"))
    return Path(text.partition("://")[2] if "://" in text else text)
