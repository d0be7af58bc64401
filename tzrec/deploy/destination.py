"""Where an export goes: it appears there complete, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tzrec import storage
from tzrec.deploy.artefact import MANIFEST
from tzrec.deploy.upload import upload_new
from tzrec.errors import ExportError, TzrecError
from tzrec.utils.scratch import Scratch


def refuse_existing(export_dir: str | Path) -> None:
    """Refuses to write over something.

    Raises:
        ExportError: ``export_dir`` exists, or the storage does not answer.
        MissingDependencyError: no installed package knows the scheme of ``export_dir``.
    """
    target: str | Path = export_dir
    if storage.is_remote(export_dir):
        with _as_export_error(export_dir):
            # Object stores have no directories: one is there when something is in it.
            found = storage.exists(export_dir) or bool(storage.list_directory(export_dir))
    else:
        target = local_path(export_dir)
        found = os.path.lexists(target)
    if found:
        raise ExportError(
            f"export_dir {target} exists already",
            hint="name a new directory: an export never overwrites another one",
        )


def local_path(export_dir: str | Path) -> Path:
    """Returns the absolute path of a directory of this machine; ``file://`` is fine."""
    text = os.fspath(export_dir)
    scheme, found, rest = text.partition("://")
    return Path(rest if found and scheme in ("file", "local") else text).expanduser().absolute()


@contextlib.contextmanager
def published(export_dir: str | Path, *, staging: str | None = None) -> Iterator[Path]:
    """Gives a directory to write to, whose content appears as ``export_dir`` when all went well.

    A local one is written beside ``export_dir`` and renamed. A remote one is written to
    ``staging`` and uploaded, every ``manifest.json`` after all other files: whoever reads a
    manifest finds what it lists. What an export left that was killed is removed first.

    Args:
        export_dir: must not exist; local, or with a scheme that fsspec knows.
        staging: directory for what is uploaded; None = that for temporary files.

    Raises:
        ExportError: ``export_dir`` exists, or the storage refuses the files.
    """
    refuse_existing(export_dir)
    if storage.is_remote(export_dir):
        with _uploaded(os.fspath(export_dir).rstrip("/"), staging) as work:
            yield work
        return
    target = local_path(export_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    with Scratch(target.parent, ".", name=f"{target.name}.", suffix=".tmp", mode=0o777) as work:
        yield work
        for path in [*work.rglob("*"), work]:
            _fsync(path)
        refuse_existing(target)
        work.rename(target)
        _fsync(target.parent)


@contextlib.contextmanager
def _uploaded(target: str, staging: str | None) -> Iterator[Path]:
    with Scratch(staging, "tzrec-export-") as work:
        yield work
        manifests = sorted(os.path.relpath(path, work) for path in work.rglob(MANIFEST))
        refuse_existing(target)
        with _as_export_error(target):
            upload_new(work, target, last=manifests)


@contextlib.contextmanager
def _as_export_error(target: str | Path) -> Iterator[None]:
    """Names the storage in what it raises, of whatever class that is."""
    try:
        yield
    except TzrecError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"{target} cannot be written: {reason}",
            hint="are the bucket, the endpoint and the credentials of the storage right?",
        ) from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
