"""Directories for a while: removed with their owner or, where that was killed, by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import socket
import tempfile
import uuid
import weakref
from pathlib import Path
from types import TracebackType

logger = logging.getLogger("tzrec")

_LOCK = ".lock"


class Scratch:
    """A new directory that goes with this object, at the latest with the process.

    A process that is killed leaves it. So ``{path}.lock`` lies beside it and is locked as long as
    its process lives; whoever makes another directory of the same kind on this machine removes
    those whose lock is free. Where the file system has no locks, nothing is removed but the own.

    Args:
        parent: where it lies, made if there is none; None = the directory for temporary files.
        prefix: of its name; it and ``suffix`` say which directories are of its kind.
        name: what follows the prefix, before a part that nothing else has.
        suffix: end of its name.
        mode: who may read and write it, as far as the umask lets them.

    Attributes:
        path: of the directory.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(
        self,
        parent: str | Path | None,
        prefix: str,
        *,
        name: str = "",
        suffix: str = "",
        mode: int = 0o700,
    ) -> None:
        folder = Path(parent or tempfile.gettempdir()).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder, prefix, suffix)
        # Not by process id: in containers that share a disk every process may be number 1.
        self.path = folder / f"{prefix}{name}{uuid.uuid4().hex}{suffix}"
        lock = self.path.with_name(self.path.name + _LOCK)
        descriptor = _locked(lock)
        try:
            self.path.mkdir(mode=mode)
        finally:
            # A process that was forked off has a copy of this object: it removes nothing.
            self._remove = weakref.finalize(
                self, _remove, self.path, lock, descriptor, owner=os.getpid()
            )

    def close(self) -> None:
        """Removes the directory, if it is still there."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _locked(lock: Path) -> int | None:
    """Makes a file and locks it; None where the file system has no locks."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            lock.unlink(missing_ok=True)
            return None
        # Somebody who clears up may have been quicker than the lock.
        if os.fstat(descriptor).st_nlink:
            os.write(descriptor, _host())
            return descriptor
        os.close(descriptor)


def _host() -> bytes:
    return socket.gethostname().encode()


def _remove(path: Path, lock: Path, descriptor: int | None, *, owner: int) -> None:
    if os.getpid() != owner:
        return
    shutil.rmtree(path, ignore_errors=True)
    if descriptor is not None:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _remove_abandoned(folder: Path, prefix: str, suffix: str) -> None:
    """Removes directories of a kind whose process has died; of this user only."""
    known = re.compile(f"{re.escape(prefix)}.*[0-9a-f]{{32}}{re.escape(suffix + _LOCK)}")
    for name in os.listdir(folder):
        if not known.fullmatch(name):
            continue
        with contextlib.suppress(OSError):  # it lives, is another user's, or has just gone
            descriptor = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_uid != os.geteuid():
                    continue
                # Locks of a shared disk may hold on one machine only.
                if os.read(descriptor, 256) != _host():
                    continue
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path = folder / name.removesuffix(_LOCK)
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                    logger.info("removed %s, left by a process that was killed", path)
                os.unlink(folder / name)
            finally:
                os.close(descriptor)
