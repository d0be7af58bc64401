"""Files that features read: copied into the artefact, found again when it is loaded."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message

from tzrec.config.messages import walk
from tzrec.deploy.artefact import RESERVED_NAMES
from tzrec.errors import ExportError
from tzrec.protos.pipeline_pb2 import EasyRecConfig


def copy_feature_assets(config: EasyRecConfig, directory: Path) -> None:
    """Copies vocabularies and the like next to the model and makes ``config`` name the copies.

    A copy is called ``{stem}_{md5 of the content}{suffix}``, so equal files are stored once.

    Args:
        config: changed in place; paths become relative to ``directory``.
        directory: the artefact.

    Raises:
        ExportError: a file that a feature names is not there.
    """
    for message, field, where in _file_fields(config):
        asset_dir = getattr(message, "asset_dir", "")
        source = _readable(Path(asset_dir, getattr(message, field)), what=f"{where}.{field}")
        digest = hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()
        name = f"{source.stem}_{digest}{source.suffix}"
        shutil.copyfile(source, directory / name)
        setattr(message, field, name)
        if asset_dir:
            message.ClearField("asset_dir")


def resolve_feature_assets(config: EasyRecConfig, directory: Path) -> None:
    """Makes the relative paths of `copy_feature_assets` absolute, in place."""
    for message, field, _ in _file_fields(config):
        setattr(message, field, str(directory / getattr(message, field)))


def copy_asset_files(files: tuple[str, ...], directory: Path) -> None:
    """Copies the files that ``--asset_files`` names, under their own names.

    Raises:
        ExportError: a file is not there, or its name is taken in the artefact.
    """
    for name in files:
        source = _readable(Path(name), what="asset_files")
        target = directory / source.name
        if source.name in RESERVED_NAMES or target.exists():
            raise ExportError(f"asset file {name} would overwrite {source.name} of the export")
        shutil.copyfile(source, target)


def _file_fields(config: EasyRecConfig) -> Iterator[tuple[Message, str, str]]:
    for index, feature in enumerate(config.feature_configs):
        for where, message in walk(feature, f"feature_configs[{index}]"):
            for field in message.DESCRIPTOR.fields:
                if field.name.endswith("_file") and getattr(message, field.name):
                    yield message, field.name, where


def _readable(path: Path, *, what: str) -> Path:
    if not path.is_file():
        raise ExportError(f"{what}: there is no file {path}")
    return path
