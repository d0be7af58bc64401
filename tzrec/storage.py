"""Files by path, local or by scheme (``s3://``, ``memory://``, …) through fsspec.

The one place that turns a path into a file system; nothing patches `open` or `os`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from tzrec.errors import MissingDependencyError

# Of object stores one stream is slow, many are not.
_PIECE_BYTES = 16 << 20
_PIECES_AT_A_TIME = 8


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Returns whether the path has a scheme other than ``file://``."""
    scheme, found, _ = os.fspath(path).partition("://")
    return bool(found) and scheme not in ("file", "local")


def file_system(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """Returns the fsspec file system of a path and the path within it.

    Raises:
        MissingDependencyError: no installed package knows the scheme.
    """
    import fsspec

    name = os.fspath(path)
    try:
        system, inner = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:
        scheme = name.partition("://")[0]
        raise MissingDependencyError(
            f"no file system for {name!r}: {error}",
            hint=f"install the fsspec package that knows {scheme}:// (s3fs for s3://)",
        ) from error
    return system, inner


def is_local(system: Any) -> bool:
    """Returns whether an fsspec file system is this machine's."""
    protocol = system.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def open_file(path: str | os.PathLike[str], mode: str = "rb", **options: Any) -> IO[Any]:
    """Opens a file; ``options`` as in `open` (``encoding``, …). Raises what the system raises."""
    system, inner = file_system(path)
    stream: IO[Any] = system.open(inner, mode, **options)
    return stream


def exists(path: str | os.PathLike[str]) -> bool:
    """Returns whether there is a file or directory of that path."""
    system, inner = file_system(path)
    return bool(system.exists(inner))


def is_directory(path: str | os.PathLike[str]) -> bool:
    """Returns whether there is a directory of that path."""
    system, inner = file_system(path)
    return bool(system.isdir(inner))


def list_directory(path: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted names in a directory, ``[]`` when there is none."""
    system, inner = file_system(path)
    system.invalidate_cache()
    if not system.isdir(inner):
        return []
    return sorted(str(name).rstrip("/").rpartition("/")[2] for name in system.ls(inner, False))


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Removes a directory with everything in it; fine when there is none."""
    system, inner = file_system(path)
    if system.exists(inner):
        system.rm(inner, recursive=True)


def upload_tree(local: str | os.PathLike[str], target: str, *, last: Sequence[str] = ()) -> None:
    """Copies the files of a local directory below ``target``.

    Object stores have no rename. Whoever reads must therefore know a whole tree by a file that
    is written ``last``.

    Args:
        local: directory.
        target: path with a scheme.
        last: names relative to ``local`` that are copied after all others, in this order.
    """
    system, inner = file_system(target)
    names = [
        os.path.relpath(os.path.join(folder, name), local)
        for folder, _, files in os.walk(local)
        for name in files
    ]
    for name in [*sorted(set(names) - set(last)), *last]:
        system.makedirs(os.path.dirname(f"{inner}/{name}"), exist_ok=True)
        system.put_file(os.path.join(local, name), f"{inner}/{name}")


def download_tree(source: str, local: str | os.PathLike[str]) -> None:
    """Copies all files below ``source`` into a local directory, which is made."""
    download_files(source, local, file_sizes(source))


def file_sizes(path: str | os.PathLike[str]) -> dict[str, int | None]:
    """Returns the files below a directory: name relative to it → bytes, None where not known."""
    system, inner = file_system(path)
    system.invalidate_cache()
    root = system._strip_protocol(inner)
    found = system.find(inner, detail=True)
    return {os.path.relpath(name, root): info.get("size") for name, info in found.items()}


def download_files(
    source: str, local: str | os.PathLike[str], sizes: Mapping[str, int | None]
) -> None:
    """Copies files below ``source`` into a local directory.

    Of an object store several files, and several pieces of a large one, come at a time.

    Args:
        source: path with a scheme.
        local: directory, made if there is none.
        sizes: name relative to ``source`` → bytes; None where that is not known.

    Raises:
        FileNotFoundError: a file is not there; what else the system raises.
    """
    system, inner = file_system(source)
    pieces: list[tuple[str, str, int, int]] = []
    whole: list[tuple[str, str]] = []
    for name, size in sizes.items():
        remote, target = f"{inner}/{name}", os.path.join(local, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if size and getattr(system, "async_impl", False):
            pieces += [(remote, target, start, size) for start in range(0, size, _PIECE_BYTES)]
        else:
            whole.append((remote, target))
    for remote, target in whole:
        system.get_file(remote, target)
    with ThreadPoolExecutor(_PIECES_AT_A_TIME) as pool:
        running = [pool.submit(_download_piece, system, *piece) for piece in pieces]
        try:
            for each in running:
                each.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _download_piece(system: Any, remote: str, target: str, start: int, size: int) -> None:
    end = min(start + _PIECE_BYTES, size)
    content = system.cat_file(remote, start=start, end=end)
    if len(content) != end - start:
        raise OSError(
            f"{remote}: asked for the bytes from {start} to {end}, got {len(content)} bytes: it "
            "changed meanwhile, or its server does not give parts of files; try again"
        )
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while content:
            written = os.pwrite(descriptor, content, start)
            content, start = content[written:], start + written
    finally:
        os.close(descriptor)
