"""The exported directory: what lies in it, and how it proves that it is whole.

::

    scripted_model.pt    the model; input: parse keys → tensors, output: name → tensor
                         (compiled exports have `aoti` files in its place, see `MODEL_FILES`)
    pipeline.config      the config it was trained with; paths of assets are relative
    model_acc.json       switches that the interface's online processor reads
    manifest.json        versions, options, inputs, outputs, parity, size and SHA-256 of each file
    golden.npz           one batch of inputs and the trained model's outputs for it
    golden_rows.parquet  raw columns of its first rows
    fg.json              feature generation, unless columns are encoded (FG_NONE)
    gm.code              the traced Python, for people
    <assets>             vocabularies of the features, and every asset file asked for
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path, PurePosixPath
from typing import Any

import tzrec
from tzrec.constant import PIPELINE_CONFIG
from tzrec.errors import ServingError, at
from tzrec.fg.handler import FG_JSON

SCRIPTED_MODEL = "scripted_model.pt"
TRACED_CODE = "gm.code"
MODEL_ACC = "model_acc.json"
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
GOLDEN_ROWS = "golden_rows.parquet"
# Files without which a target cannot run.
MODEL_FILES = {
    "torchscript": (SCRIPTED_MODEL,),
    "aoti": ("scripted_sparse_model.pt", "aoti/aoti_model.pt2", "aoti/target.json"),
    "aoti_unified": ("aoti/aoti_model.pt2", "aoti/target.json"),
}
RESERVED_NAMES = (
    SCRIPTED_MODEL,
    TRACED_CODE,
    "aoti",
    "gm_dense.code",
    "gm_sparse.code",
    "graph",
    "scripted_sparse_model.pt",
    PIPELINE_CONFIG,
    MODEL_ACC,
    MANIFEST,
    GOLDEN,
    GOLDEN_ROWS,
    FG_JSON,
)
# Directories of an export in parts.
PARTS = ("embedding", "item", "model", "user")
_NEEDED = (PIPELINE_CONFIG, MODEL_ACC, GOLDEN)

# Of parts of the manifest that are used as they stand.
_KINDS = {"target": str, "versions": dict, "options": dict, "parity": dict}

FORMAT = "tzrec-artefact"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """Type and shape of one input or output.

    Attributes:
        dtype: NumPy name, e.g. ``float32``.
        shape: dimensions after the first; the first is the number of rows or values.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Returns that of a file."""
        return cls(path.stat().st_size, sha256(path))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What an artefact says about itself.

    Attributes:
        target: what runs the model.
        model: name of the model class.
        created: UTC time, ISO 8601.
        versions: package → version that wrote it.
        options: `ExportOptions.to_dict`.
        inputs: parse key → type; the first dimension is free.
        outputs: name → type; the first dimension is the rows.
        parity: case → output → largest absolute difference, and what was compared; of narrow
            tables also their sizes, and what they change in the scores.
        files: relative path → size and checksum, of every file but the manifest.
        farm_hash: text is hashed with FarmHash Fingerprint64.
    """

    target: str
    model: str
    created: str
    versions: dict[str, str]
    options: dict[str, Any]
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    parity: dict[str, Any]
    files: dict[str, FileEntry]
    farm_hash: bool = False

    def to_json(self) -> str:
        """Returns the text of ``manifest.json``."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION} | dataclasses.asdict(self)
        return json.dumps(body, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads the text of ``manifest.json``.

        Raises:
            ServingError: it is not such a text, or a version that this code cannot read.
        """
        try:
            body = json.loads(text)
            if body.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            version = body.pop("format_version")
        except (ValueError, KeyError, AttributeError) as error:
            raise ServingError(f"{MANIFEST} cannot be read: {error!r}") from error
        if version != FORMAT_VERSION:
            raise ServingError(
                f"artefact format version {version}, this tzrec {tzrec.__version__} reads "
                f"{FORMAT_VERSION}",
                hint="export the checkpoint again with this version of tzrec",
            )
        try:
            for key in ("inputs", "outputs"):
                body[key] = {
                    name: TensorSpec(spec["dtype"], tuple(spec["shape"]))
                    for name, spec in body[key].items()
                }
            body["files"] = {
                _inside(name): FileEntry(**entry) for name, entry in body["files"].items()
            }
            made = cls(**body)
            for field, kind in _KINDS.items():
                if not isinstance(getattr(made, field), kind):
                    raise TypeError(f"{field} is no {kind.__name__}")
            return made
        except (TypeError, KeyError, AttributeError) as error:
            raise ServingError(f"{MANIFEST} lacks a part: {error!r}") from error


def read_manifest(path: str | Path) -> Manifest:
    """Reads ``manifest.json`` of an artefact, without looking at the other files.

    Raises:
        ServingError: there is none, or it cannot be read.
    """
    directory = Path(path)
    manifest = directory / MANIFEST
    if not directory.is_dir():
        raise ServingError(f"{directory} is not a directory", hint="make it with `tzrec export`")
    if not manifest.is_file():
        parts = found_parts(directory)
        if parts:
            raise ServingError(
                f"{directory} is an export in parts: {', '.join(parts)}",
                hint=f"name one of them: {directory / parts[-1]}",
            )
        found = ", ".join(sorted(child.name for child in directory.iterdir())[:8]) or "nothing"
        raise ServingError(
            f"{directory} holds no {MANIFEST} (found: {found}): it is not an export of tzrec, "
            "or an incomplete copy of one"
        )
    try:
        text = manifest.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ServingError(f"{manifest} cannot be read: {error}") from error
    with at(f"{directory}/"):
        return Manifest.from_json(text)


def found_parts(directory: str | Path) -> list[str]:
    """Returns the parts (``user``, ``item``) of an exported directory; none of one in one piece."""
    path = Path(directory)
    if not path.is_dir() or (path / MANIFEST).exists():
        return []
    return [name for name in PARTS if (path / name / MANIFEST).is_file()]


def verify_artefact(path: str | Path) -> Manifest:
    """Checks that an artefact is whole, untouched and readable by what is installed.

    Returns:
        Its manifest.

    Raises:
        ServingError: a file is missing, has another size or checksum, or the export was
            written by a newer torch than the one that runs.
    """
    directory = Path(path)
    manifest = read_manifest(directory)
    _refuse_newer_torch(manifest.versions.get("torch", ""))
    if manifest.target not in MODEL_FILES:
        raise ServingError(
            f"{directory / MANIFEST} names the target {manifest.target!r}; this tzrec "
            f"{tzrec.__version__} runs {', '.join(MODEL_FILES)}"
        )
    for name in (*MODEL_FILES[manifest.target], *_NEEDED):
        if name not in manifest.files:
            raise ServingError(f"{directory / MANIFEST} does not list {name}")
    for name, entry in manifest.files.items():
        _verify_file(directory, name, entry)
    return manifest


def describe_files(directory: Path) -> dict[str, FileEntry]:
    """Returns size and checksum of every file below ``directory`` but the manifest."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): FileEntry.of(path)
        for path in paths
        if path != directory / MANIFEST
    }


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def installed_versions() -> dict[str, str]:
    """Returns the versions that decide whether an artefact can run."""
    found = {"tzrec": tzrec.__version__, "python": platform.python_version()}
    for name in ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "numpy", "pyarrow"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"machine": platform.machine()}


def _inside(name: str) -> str:
    """Refuses a name that leaves the directory: a manifest may be anybody's."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise ServingError(f"{MANIFEST} lists a file outside of the artefact: {name!r}")
    return name


def _verify_file(directory: Path, name: str, entry: FileEntry) -> None:
    path = directory / name
    hint = "copy the artefact again, or export the checkpoint again"
    if not path.is_file():
        raise ServingError(f"{path} is missing; {MANIFEST} lists it", hint=hint)
    size = path.stat().st_size
    if size != entry.size:
        raise ServingError(f"{path} has {size} bytes; {MANIFEST} says {entry.size}", hint=hint)
    found = sha256(path)
    if found != entry.sha256:
        raise ServingError(
            f"{path} was changed after the export: its SHA-256 is {found[:16]}…, {MANIFEST} says "
            f"{entry.sha256[:16]}…",
            hint=hint,
        )


def _refuse_newer_torch(written: str) -> None:
    # TorchScript files stay readable for newer versions of torch, not for older ones.
    running = importlib.metadata.version("torch")
    if _major_minor(written) > _major_minor(running):
        raise ServingError(
            f"the export was written by torch {written}, torch {running} runs",
            hint=f"install torch {written} or newer, or export the checkpoint again",
        )


def _major_minor(version: str) -> tuple[int, int]:
    try:
        major, minor = version.split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        raise ServingError(f"{MANIFEST} names no version of torch: {version!r}") from None
