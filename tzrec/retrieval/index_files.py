"""The files of an index directory, and the proof that they are whole and belong together.

``index.json`` lists size and SHA-256 of each. Of a user tower it lists the manifest, which lists
the files of the tower.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tzrec
from tzrec.deploy.artefact import MANIFEST, FileEntry, found_parts, sha256
from tzrec.deploy.parts import USER
from tzrec.errors import ConfigError, ServingError
from tzrec.retrieval import exact
from tzrec.retrieval.index_info import FLAT, TYPES, IndexInfo

INDEX_JSON, IDS, VECTORS, FAISS_FILE = "index.json", "ids.parquet", "vectors.npy", "faiss_index"
TOWER_MANIFEST = f"{USER}/{MANIFEST}"
FORMAT, FORMAT_VERSION = "tzrec-index", 2
_NAMES = (IDS, VECTORS, FAISS_FILE, TOWER_MANIFEST)


def local_path(directory: str | Path) -> Path:
    """Returns the absolute path of an index.

    Raises:
        ConfigError: it is not local.
    """
    if "://" in str(directory):
        raise ConfigError(f"{directory}: an index lies in a local directory")
    return Path(directory).expanduser().absolute()


def refuse_existing(directory: str | Path) -> Path:
    """Returns the path of an index that can be written.

    Raises:
        ConfigError: it exists, or is not local.
    """
    target = local_path(directory)
    if os.path.lexists(target):
        raise ConfigError(
            f"{target} exists already", hint="name a new directory: nothing is overwritten"
        )
    return target


def write_info(path: Path, info: IndexInfo) -> None:
    """Writes ``index.json`` of a directory in which all other files are."""
    files = {
        name: dataclasses.asdict(FileEntry.of(path / name))
        for name in _NAMES
        if (path / name).exists()
    }
    body = {"format": FORMAT, "format_version": FORMAT_VERSION, "files": files}
    text = json.dumps(body | dataclasses.asdict(info), indent=2)
    (path / INDEX_JSON).write_text(f"{text}\n")


def verified_info(path: Path) -> IndexInfo:
    """Reads ``index.json`` and checks the files that it lists.

    Raises:
        ServingError: it is no index, or its files are not those that were written together.
    """
    if not (path / INDEX_JSON).is_file():
        raise _no_index(path)
    try:
        body = json.loads((path / INDEX_JSON).read_text())
        if body.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        _refuse_version(path, body.pop("format_version"))
        files = {name: FileEntry(**entry) for name, entry in body.pop("files").items()}
        info = IndexInfo(**body)
        if info.type not in TYPES[1:] or info.metric not in exact.METRICS:
            raise ValueError(f"type {info.type!r}, metric {info.metric!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServingError(f"{path / INDEX_JSON} cannot be read: {error!r}") from error
    _check_names(path, info, files)
    for name, entry in files.items():
        _verify(path / name, entry)
    return info


def _no_index(path: Path) -> ServingError:
    if not path.exists():
        return ServingError(f"{path} does not exist", hint="`tzrec index` makes an index")
    if found_parts(path):
        return ServingError(
            f"{path} is an export and holds no index (no {INDEX_JSON})",
            hint=f"tzrec index {path} --items ITEMS --out DIR makes one of it: give that DIR",
        )
    return ServingError(f"{path} holds no index (no {INDEX_JSON})", hint="`tzrec index` makes one")


def _refuse_version(path: Path, version: Any) -> None:
    if version != FORMAT_VERSION:
        raise ServingError(
            f"{path / INDEX_JSON} cannot be read: format version {version}, this tzrec "
            f"{tzrec.__version__} reads {FORMAT_VERSION}",
            hint="make the index again with this version: `tzrec index`",
        )


def _check_names(path: Path, info: IndexInfo, files: Mapping[str, FileEntry]) -> None:
    """Refuses lists that leave out a file that is used, or name one outside of the index."""
    needed = {IDS, VECTORS if info.type == FLAT else FAISS_FILE}
    if (path / USER).exists():
        needed.add(TOWER_MANIFEST)
    for name in sorted(needed - set(files)):
        raise ServingError(
            f"{path / INDEX_JSON} does not list {name}: the file is of another index",
            hint="copy the index again, or make a new one with `tzrec index`",
        )
    unknown = sorted(set(files) - set(_NAMES))
    if unknown:
        raise ServingError(
            f"{path / INDEX_JSON} lists {unknown[0]!r}, which is no file of an index"
        )


def _verify(path: Path, entry: FileEntry) -> None:
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        reason = "is missing"
    elif size != entry.size:
        reason = f"has {size} bytes, not {entry.size}"
    elif sha256(path) != entry.sha256:
        reason = f"is not the file that was written: its SHA-256 is not that of {INDEX_JSON}"
    else:
        return
    raise ServingError(
        f"{path} {reason}",
        hint="files of two indexes were mixed, or the copy is broken: copy the index again",
    )
