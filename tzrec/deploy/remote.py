"""Artefacts of other machines: fetched whole, with the checksums of their manifest."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tzrec import storage
from tzrec.deploy import artefact
from tzrec.deploy.destination import local_path
from tzrec.errors import ServingError, TzrecError
from tzrec.options import from_environment


class Staged:
    """A directory of this machine with the files of an artefact.

    A remote one is a copy that lives as long as this object, or until `close`.

    Attributes:
        directory: where the files are.
        source: the path that was asked for.
    """

    def __init__(
        self, source: str, directory: Path, copy: tempfile.TemporaryDirectory[str] | None = None
    ) -> None:
        self.source = source
        self.directory = directory
        self._copy = copy

    def close(self) -> None:
        """Removes the copy; a local directory stays."""
        if self._copy is not None:
            self._copy.cleanup()


def staged(path: str | Path, *, cache_dir: str | None = None) -> Staged:
    """Brings an artefact to this machine, if it is not here.

    Only files that its manifest lists are fetched; `artefact.verify_artefact` checks them.

    Args:
        path: local, or with a scheme that fsspec knows.
        cache_dir: directory for the copy; None = as ``LOCAL_CACHE_DIR`` says, else that for
            temporary files.

    Raises:
        ServingError: there is no artefact, or the storage does not give it.
        MissingDependencyError: no installed package knows the scheme.
    """
    source = os.fspath(path)
    if not storage.is_remote(source):
        return Staged(source, local_path(source))
    cache_dir = cache_dir or from_environment().cache_dir
    if cache_dir is not None:
        os.makedirs(cache_dir, exist_ok=True)
    # Removed with the last reference to it, also when what follows fails.
    copy = tempfile.TemporaryDirectory(prefix="tzrec-model-", dir=cache_dir)
    try:
        _fetch(source.rstrip("/"), Path(copy.name))
    except TzrecError:
        raise
    except Exception as error:  # each storage has its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ServingError(
            f"{source} cannot be read: {reason}",
            hint="are the bucket, the endpoint and the credentials of the storage right?",
        ) from error
    return Staged(source, Path(copy.name), copy)


def _fetch(source: str, target: Path) -> None:
    system, inner = storage.file_system(source)
    system.invalidate_cache()
    if not system.exists(f"{inner}/{artefact.MANIFEST}"):
        names = storage.list_directory(source)
        parts = [name for name in artefact.PARTS if name in names]
        raise ServingError(
            f"{source} holds no {artefact.MANIFEST} (found: {', '.join(names[:8]) or 'nothing'})",
            hint=f"name a part: {source}/{parts[-1]}" if parts else "make it with `tzrec export`",
        )
    system.get_file(f"{inner}/{artefact.MANIFEST}", str(target / artefact.MANIFEST))
    for name in artefact.read_manifest(target).files:
        local = target / name
        local.parent.mkdir(parents=True, exist_ok=True)
        if not system.exists(f"{inner}/{name}"):
            raise ServingError(f"{source}/{name} is missing; {artefact.MANIFEST} lists it")
        system.get_file(f"{inner}/{name}", str(local))
