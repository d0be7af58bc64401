"""``manifest.json`` of a checkpoint: what it holds, and the proof that it is whole.

It is written last. A directory without it was left by a run that died while saving, unless
it comes from a program that writes none: then the files must be as long as
``torch.distributed.checkpoint`` says in ``.metadata``.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from tzrec import storage
from tzrec.training.location import Location

FILE_NAME = "manifest.json"
TRAINER_STATE = "trainer_state.pt"
DATA_POSITION = "dataloader_state.json"
FORMAT = 1


def file_sizes(directory: Location) -> dict[str, int]:
    """Returns the size in bytes of all files below a directory, by relative name."""
    system, inner = storage.file_system(directory)
    system.invalidate_cache()
    prefix = inner.rstrip("/") + "/"
    found = system.find(inner, detail=True)
    return {name.removeprefix(prefix): int(info["size"]) for name, info in found.items()}


def write_manifest(
    directory: Path, content: dict[str, Any], sizes: dict[str, int] | None = None
) -> None:
    """Writes the manifest with the sizes of all files of the checkpoint.

    Args:
        directory: where to.
        content: what the checkpoint holds.
        sizes: relative name → bytes; None = those of the files in ``directory``.
    """
    files = dict(sorted((file_sizes(directory) if sizes is None else sizes).items()))
    manifest = {"format": FORMAT, **content, "files": files}
    (directory / FILE_NAME).write_text(json.dumps(manifest, indent=2) + "\n")


def read_manifest(directory: Location) -> dict[str, Any] | None:
    """Returns the manifest, or None for a checkpoint of another program.

    Raises:
        ValueError: the manifest is cut off or no manifest.
    """
    path = directory / FILE_NAME
    if not storage.exists(path):
        return None
    with storage.open_file(path, "r", encoding="utf-8") as stream:
        manifest = json.load(stream)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{FILE_NAME} lists no files")
    return manifest


def incomplete_because(directory: Location) -> str | None:
    """Returns why a checkpoint cannot be used, or None when it is whole."""
    sizes = file_sizes(directory)
    if not sizes and not storage.is_directory(directory):
        return "it does not exist"
    try:
        manifest = read_manifest(directory)
    except ValueError:
        return f"{FILE_NAME} is cut off or damaged"
    if manifest is not None:
        return _shortfall(manifest["files"], sizes, exact=True)
    if TRAINER_STATE in sizes:
        return f"{FILE_NAME} is missing: the run ended while it was written or removed"
    return _foreign_because(directory, sizes)


def _foreign_because(directory: Location, sizes: dict[str, int]) -> str | None:
    """Returns what is wrong with a checkpoint of another program."""
    if "model/.metadata" not in sizes and "optimizer/.metadata" not in sizes:
        return f"it has neither {FILE_NAME} nor model/.metadata"
    for part in ("model", "optimizer"):
        if f"{part}/.metadata" not in sizes:
            if any(name.startswith(f"{part}/") for name in sizes):
                return f"{part}/.metadata is missing"
            continue
        try:
            with storage.open_file(directory / part / ".metadata") as stream:
                stored = pickle.load(stream).storage_data.values()  # noqa: S301 (as torch reads it)
        except Exception as error:
            return f"{part}/.metadata cannot be read ({error})"
        needed: dict[str, int] = {}
        for piece in stored:
            name = f"{part}/{piece.relative_path}"
            needed[name] = max(needed.get(name, 0), piece.offset + piece.length)
        reason = _shortfall(needed, sizes, exact=False)
        if reason is not None:
            return reason
    return None


def _shortfall(needed: dict[str, int], sizes: dict[str, int], *, exact: bool) -> str | None:
    for name, size in needed.items():
        if name not in sizes:
            return f"{name} is missing"
        found = sizes[name]
        # The data position is replaced when the pass of a saved step turns out to be over.
        if name != DATA_POSITION and (found != size if exact else found < size):
            return f"{name} has {found} bytes instead of {size}"
    return None
