"""How a root of versions is written: on this machine, or in an object store."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tzrec import storage
from tzrec.deploy.upload import upload_new
from tzrec.errors import ConfigError
from tzrec.serving.slot import Load
from tzrec.serving.versions import VERSIONS, is_version_name

_LOCK = ".lock"
_PARTIAL = ".partial-"


class LocalRoot:
    """A root on this machine: versions appear by rename, files are replaced by rename."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().absolute()

    def refuse_other_use(self) -> None:
        """Raises ConfigError for a directory that is used for something else."""
        if not self.root.is_dir() or not any(self.root.iterdir()):
            return
        if not (self.root / VERSIONS).is_dir():
            found = ", ".join(sorted(child.name for child in self.root.iterdir())[:5])
            raise ConfigError(
                f"{self.root} is no directory of versions (it holds {found})",
                hint="name a new directory",
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other publishers out."""
        (self.root / VERSIONS).mkdir(parents=True, exist_ok=True)
        with (self.root / _LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def names(self) -> list[str]:
        """Returns the names of the versions that are there."""
        folder = self.root / VERSIONS
        found = folder.iterdir() if folder.is_dir() else ()
        return [path.name for path in found if is_version_name(path.name) and path.is_dir()]

    def add(self, source: str, name: str, load: Load) -> None:
        """Copies a version, once it is known to work."""
        folder = self.root / VERSIONS
        for stale in folder.glob(f"{_PARTIAL}*"):  # of a killed publisher: we have the lock
            _remove(stale)
        partial = folder / f"{_PARTIAL}{name}"
        try:
            shutil.copytree(source, partial)
            load(str(partial), version=name)
            for path in sorted(partial.rglob("*")):
                _sync(path)
            os.rename(partial, folder / name)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync(folder)

    def read(self, name: str) -> str:
        """Returns the text of a file of the root, empty where there is none."""
        path = self.root / name
        return path.read_text() if path.is_file() else ""

    def write(self, name: str, text: str) -> None:
        """Replaces a file of the root at once."""
        partial = self.root / f".{name}.new"
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.root / name)
        _sync(self.root)

    def remove(self, name: str) -> None:
        """Removes a version."""
        folder = self.root / VERSIONS
        # First out of sight, so that nobody starts to load half of it.
        gone = folder / f"{_PARTIAL}{name}"
        os.rename(folder / name, gone)
        _remove(gone)


class RemoteRoot:
    """A root in an object store: nobody looks at a version before ``current`` names it."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    def refuse_other_use(self) -> None:
        """Raises ConfigError for a directory that is used for something else."""
        found = storage.list_directory(self.root)
        if found and VERSIONS not in found:
            raise ConfigError(
                f"{self.root} is no directory of versions (it holds {', '.join(found[:5])})",
                hint="name a new directory",
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other publishers out."""
        yield  # object stores have no locks: publish from one place at a time

    def names(self) -> list[str]:
        """Returns the names of the versions that are there."""
        found = storage.list_directory(f"{self.root}/{VERSIONS}")
        return [name for name in found if is_version_name(name)]

    def add(self, source: str, name: str, load: Load) -> None:
        """Copies a version, once it is known to work."""
        load(source, version=name)
        upload_new(source, f"{self.root}/{VERSIONS}/{name}")

    def read(self, name: str) -> str:
        """Returns the text of a file of the root, empty where there is none."""
        path = f"{self.root}/{name}"
        if not storage.exists(path):
            return ""
        with storage.open_file(path) as stream:
            return str(stream.read().decode())

    def write(self, name: str, text: str) -> None:
        """Replaces a file of the root at once."""
        with storage.open_file(f"{self.root}/{name}", "wb") as stream:
            stream.write(text.encode())

    def remove(self, name: str) -> None:
        """Removes a version."""
        storage.remove_tree(f"{self.root}/{VERSIONS}/{name}")


def _remove(path: Path) -> None:
    """Removes a version; of one that is a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def root_of(path: str) -> LocalRoot | RemoteRoot:
    """Returns the writer of a root, which need not be there yet."""
    return RemoteRoot(path) if storage.is_remote(path) else LocalRoot(path)
