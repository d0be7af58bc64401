"""Files that features read: copied into the artefact, found again when it is loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.message import Message

from tzrec.config.messages import walk
from tzrec.deploy.artefact import RESERVED_NAMES
from tzrec.errors import ExportError
from tzrec.protos.pipeline_pb2 import EasyRecConfig

_OPERATORS = "operator_lib_file"


def copy_feature_assets(config: EasyRecConfig, directory: Path) -> None:
    """Copies vocabularies and the like next to the model and makes ``config`` name the copies.

    A copy is called ``{stem}_{md5 of the content}{suffix}``, so equal files are stored once.

    Args:
        config: changed in place; paths become relative to ``directory``.
        directory: the artefact.

    Raises:
        ExportError: a file that a feature names is not there.
    """
    # Found before anything is changed: the files of a feature share its asset_dir.
    for asset in list(_assets(config)):
        source = _readable(Path(asset.folder, asset.name), what=f"{asset.where}.{asset.field}")
        digest = hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()
        name = f"{source.stem}_{digest}{source.suffix}"
        shutil.copyfile(source, directory / name)
        setattr(asset.message, asset.field, name)
    for _, message in _messages(config):
        if getattr(message, "asset_dir", ""):
            message.ClearField("asset_dir")


def resolve_feature_assets(config: EasyRecConfig, directory: Path) -> None:
    """Makes the relative paths of `copy_feature_assets` absolute, in place."""
    for asset in list(_assets(config)):
        setattr(asset.message, asset.field, str(directory / asset.name))


def check_asset_files(files: Sequence[str]) -> None:
    """Checks what ``--asset_files`` names, before anything slow is done.

    Raises:
        ExportError: a file is not there, or its name is that of a file of the export or of
            another one.
    """
    seen: dict[str, str] = {}
    for name in files:
        source = _readable(Path(name).expanduser(), what="asset_files")
        if source.name in RESERVED_NAMES:
            raise ExportError(f"asset file {name} would overwrite {source.name} of the export")
        if source.name in seen:
            raise ExportError(
                f"asset files {seen[source.name]} and {name} have the same name",
                hint="files are copied under their own names into one directory: rename one",
            )
        seen[source.name] = name


def copy_asset_files(files: Sequence[str], directory: Path) -> None:
    """Copies the files that ``--asset_files`` names, under their own names.

    Raises:
        ExportError: as `check_asset_files`, or the name is that of a file of a feature.
    """
    check_asset_files(files)
    for name in files:
        source = Path(name).expanduser()
        target = directory / source.name
        if target.exists():
            raise ExportError(f"asset file {name} would overwrite {source.name} of the export")
        shutil.copyfile(source, target)


@dataclasses.dataclass(frozen=True)
class _Asset:
    """A field that names a file: in ``message.field``, relative to ``folder``."""

    message: Message
    field: str
    where: str
    folder: str

    @property
    def name(self) -> str:
        return str(getattr(self.message, self.field))


def _assets(config: EasyRecConfig) -> Iterator[_Asset]:
    folders: dict[str, str] = {}
    for where, message in _messages(config):
        # A message inside a feature (text_normalizer) lies in the feature's folder.
        folder = getattr(message, "asset_dir", "") or folders.get(where.rpartition(".")[0], "")
        folders[where] = folder
        for field in message.DESCRIPTOR.fields:
            name = getattr(message, field.name) if field.name.endswith("_file") else ""
            # Operators may be modules, or bundled.
            if name and (field.name != _OPERATORS or name.endswith(".py")):
                relative = folder if field.name != _OPERATORS else ""
                yield _Asset(message, field.name, where, relative)


def _messages(config: EasyRecConfig) -> Iterator[tuple[str, Message]]:
    for index, feature in enumerate(config.feature_configs):
        yield from walk(feature, f"feature_configs[{index}]")


def _readable(path: Path, *, what: str) -> Path:
    if not path.is_file():
        raise ExportError(f"{what}: there is no file {path}")
    return path
