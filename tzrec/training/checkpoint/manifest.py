"""``manifest.json`` of a checkpoint: what it holds, and the proof that it is whole.

It is written last. A directory without it was left by a run that died while saving, unless
it comes from a program that writes none: then TorchRec's own ``.metadata`` must be there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE_NAME = "manifest.json"
FORMAT = 1


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    """Writes the manifest with the sizes of all files below ``directory``."""
    files = {
        str(path.relative_to(directory)): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    manifest = {"format": FORMAT, **content, "files": files}
    (directory / FILE_NAME).write_text(json.dumps(manifest, indent=2) + "\n")


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """Returns the manifest, or None for a checkpoint of another program."""
    path = directory / FILE_NAME
    return json.loads(path.read_text()) if path.exists() else None


def incomplete_because(directory: Path) -> str | None:
    """Returns why a checkpoint cannot be used, or None when it is whole."""
    if not directory.is_dir():
        return "it does not exist"
    try:
        manifest = read_manifest(directory)
    except ValueError:
        return f"{FILE_NAME} is not JSON"
    if manifest is None:
        whole = (directory / "model" / ".metadata").exists()
        return None if whole else "it has neither manifest.json nor model/.metadata"
    for name, size in manifest["files"].items():
        path = directory / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None
