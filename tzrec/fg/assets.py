"""Files that ``fg.json`` names: vocabularies, tokenizers, stop characters, operators."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator
from typing import Any

from tzrec.errors import ConfigError
from tzrec.storage import file_system, open_file

_FILE_KEYS = ("vocab_file", "stop_char_file")
_OPERATOR_KEY = "operator_lib_file"


def copy_assets(fg_json: dict[str, Any], asset_dir: str) -> None:
    """Copies the files of ``fg.json`` and puts their new names into it.

    A file is called ``{stem}_{md5}{ext}``, so equal files are there once and different files of
    one name beside each other.

    Args:
        fg_json: changed in place.
        asset_dir: folder, local or by scheme.

    Raises:
        ConfigError: a file cannot be read.
    """
    for entry, key in _files(fg_json):
        path = str(entry[key])
        try:
            with open_file(path) as stream:
                data = stream.read()
        except OSError as error:
            raise ConfigError(f"{key} {path} cannot be read: {error}") from error
        stem, extension = os.path.splitext(posixpath.basename(path))
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        entry[key] = f"{stem}_{digest}{extension}"
        target = posixpath.join(asset_dir, entry[key])
        system, inner = file_system(target)
        system.makedirs(posixpath.dirname(inner), exist_ok=True)
        with open_file(target, "wb") as stream:
            stream.write(data)


def resolve_assets(fg_json: dict[str, Any], asset_dir: str) -> None:
    """Puts the folder before the relative file names of ``fg.json``, in place."""
    for entry, key in _files(fg_json):
        path = str(entry[key])
        if "://" not in path and not os.path.isabs(path):
            entry[key] = posixpath.join(asset_dir, path)


def _files(fg_json: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for entry in fg_json.get("features", []):
        for one in entry.get("features", [entry]):
            for key in _FILE_KEYS:
                if one.get(key):
                    yield one, key
            # Other values of this key are modules.
            if str(one.get(_OPERATOR_KEY, "")).endswith(".py"):
                yield one, _OPERATOR_KEY
