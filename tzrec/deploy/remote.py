"""Artefacts of other machines: fetched whole, with the checksums of their manifest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tzrec import storage
from tzrec.deploy import artefact
from tzrec.deploy.destination import local_path
from tzrec.errors import ServingError, TzrecError
from tzrec.options import from_environment
from tzrec.utils.scratch import Scratch

Fetch = Callable[[str, Path], None]

_COPIES = "tzrec-model-"


class Staged:
    """A directory of this machine with the files of an artefact.

    A remote one is a copy that lives as long as this object, or until `close`.

    Attributes:
        directory: where the files are.
        source: the path that was asked for.
    """

    def __init__(self, source: str, directory: Path, copy: Scratch | None = None) -> None:
        self.source = source
        self.directory = directory
        self._copy = copy

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Has errors name what was asked for where they name the copy: nobody knows that one."""
        try:
            yield
        except TzrecError as error:
            if self._copy is not None:
                _rename(error, str(self.directory), self.source.rstrip("/"))
            raise

    def close(self) -> None:
        """Removes the copy; a local directory stays."""
        if self._copy is not None:
            self._copy.close()


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
    return copied(source, _fetch, cache_dir=cache_dir or from_environment().cache_dir)


def copied(source: str, fetch: Fetch, *, cache_dir: str | None = None) -> Staged:
    """Copies something remote to this machine.

    Args:
        source: path with a scheme.
        fetch: fills a directory: ``(source, directory)``.
        cache_dir: directory for the copy; None = that for temporary files.

    Raises:
        ServingError: the storage does not give it; or what ``fetch`` raises.
        MissingDependencyError: no installed package knows the scheme.
    """
    copy = Scratch(cache_dir, _COPIES)
    files = Staged(source, copy.path, copy)
    try:
        with files.named():
            fetch(source.rstrip("/"), copy.path)
    except TzrecError:
        files.close()
        raise
    except Exception as error:  # each storage has its own
        files.close()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ServingError(
            f"{source} cannot be read: {reason}",
            hint="are the bucket, the endpoint and the credentials of the storage right?",
        ) from error
    return files


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
    listed = artefact.read_manifest(target).files
    # Sizes of the storage: what a manifest says may be anything.
    sizes = storage.file_sizes(source)
    for name in listed:
        if name not in sizes:
            raise ServingError(
                f"{source}/{name} is missing; {artefact.MANIFEST} lists it",
                hint="copy the artefact again, or export the checkpoint again",
            )
    storage.download_files(source, target, {name: sizes[name] for name in listed})


def _rename(error: TzrecError, copy: str, source: str) -> None:
    error.message = error.message.replace(copy, source)
    error.hint = error.hint.replace(copy, source)
    error.location = [part.replace(copy, source) for part in error.location]
    error.args = tuple(
        each.replace(copy, source) if isinstance(each, str) else each for each in error.args
    )
