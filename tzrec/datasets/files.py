"""Input and output files by path: local ones and any scheme that fsspec knows."""

from __future__ import annotations

import fnmatch
import logging
import os

import pyarrow as pa
import pyarrow.fs as pafs

from tzrec.errors import DataError
from tzrec.storage import file_system, is_local

logger = logging.getLogger("tzrec")

_GLOB_CHARACTERS = frozenset("*?[")


def expand_paths(input_path: str, suffix: str) -> list[str]:
    """Returns the files that a comma list of paths, globs and directories stands for.

    A directory stands for its files with the suffix, at any depth, without hidden ones and
    those that start with ``_``, themselves or a directory on the way (Spark's ``_temporary``).
    Files keep the order of the list, matches are sorted.

    Args:
        input_path: comma list.
        suffix: ``.csv`` or ``.parquet``; empty for files of any name.

    Raises:
        DataError: a part of the list stands for no file.
    """
    parts = [part.strip() for part in input_path.split(",") if part.strip()]
    if not parts:
        raise DataError(
            f"the input path {input_path!r} names no file",
            hint="write train_input_path or eval_input_path into the config, or give the flag",
        )
    found: dict[str, str] = {}
    for part in parts:
        matches = _expand(part, suffix)
        if not matches:
            kind = f"{suffix.lstrip('.')} files" if suffix else "files"
            raise DataError(
                f"no {kind} exist in {part!r}",
                hint="a path is a comma list of files, globs and directories",
            )
        for match in matches:
            if found.setdefault(resolved(match), match) is not match:
                logger.warning("%s is named twice in the input path; it is read once", match)
    return list(found.values())


def resolved(path: str) -> str:
    """Returns the one name of a file, however its path was written.

    Local paths become absolute and lose symbolic links.
    """
    system, inner = file_system(path)
    return os.path.realpath(inner) if is_local(system) else str(system.unstrip_protocol(inner))


def _expand(part: str, suffix: str) -> list[str]:
    system, path = file_system(part)
    system.invalidate_cache()  # another process may have written meanwhile

    def full(name: str) -> str:
        return name if is_local(system) else system.unstrip_protocol(name)

    local_prefix = part if is_local(system) and "://" not in part else None
    if _GLOB_CHARACTERS & set(part):
        names = sorted(str(name) for name in system.glob(path))
        files = [n for n in names if system.isfile(n) and _is_data(n.rpartition("/")[2])]
        return [full(name) for name in files]
    if system.isdir(path):
        names = sorted(str(name) for name in system.find(path))
        below = [n for n in names if all(map(_is_data, n[len(path) :].strip("/").split("/")))]
        return [full(name) for name in below if fnmatch.fnmatch(name, f"*{suffix}")]
    if system.isfile(path):
        return [local_prefix or full(path)]
    return []


def _is_data(name: str) -> bool:
    return not name.startswith(("_", "."))


def arrow_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """Returns the Arrow file system of a path and the path within it."""
    system, inner = file_system(path)
    if is_local(system):
        return pafs.LocalFileSystem(), inner
    return pafs.PyFileSystem(pafs.FSSpecHandler(system)), inner


def open_input(path: str) -> pa.NativeFile:
    """Opens a file for random access.

    Raises:
        DataError: it cannot be opened.
    """
    system, inner = arrow_filesystem(path)
    try:
        return system.open_input_file(inner)
    except OSError as error:
        raise DataError(f"cannot open {path}: {error}") from error
