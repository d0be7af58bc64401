"""Writes an artefact; it appears under its name only when it scores like the model."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import Tensor, nn

from tzrec import storage
from tzrec.deploy.destination import local_path, published, refuse_existing
from tzrec.deploy.fingerprint import fingerprint
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.part_writer import write_part
from tzrec.deploy.parts import Part
from tzrec.errors import ExportError, TzrecError, at
from tzrec.protos.pipeline_pb2 import EasyRecConfig

__all__ = ["export_artefact", "export_parts", "refuse_existing"]


def export_artefact(
    *,
    config: EasyRecConfig,
    model: nn.Module,
    features: Sequence[Any],
    golden: dict[str, Tensor],
    export_dir: str | Path,
    options: ExportOptions | None = None,
    rows: pa.RecordBatch | None = None,
) -> Path | str:
    """Exports a model with its config, and proves that the files score like the model.

    Everything is written to a directory beside ``export_dir``, loaded again from there,
    compared with the model on the golden batch, loaded once more as its users will, and renamed
    at the end: whoever sees
    ``export_dir`` sees a complete, checked artefact. A remote one is uploaded at the end, its
    manifest last.

    Args:
        config: the config that the model was built from; copied, not changed.
        model: `BaseModel` with restored weights on the CPU.
        features: its features.
        golden: one predict-mode batch in parse keys, sparse ids as int64.
        export_dir: must not exist; local, or with a scheme that fsspec knows.
        options: how to export; None = the defaults.
        rows: raw columns of the golden batch.

    Returns:
        ``export_dir``; a local one as an absolute path.

    Raises:
        ExportError: ``export_dir`` exists, the model cannot be exported, or the export differs
            from it by more than ``options.tolerance``. Nothing is published then.
    """
    part = Part(model, config, list(features), golden, rows)
    return export_parts({"": part}, export_dir, options)


def export_parts(
    parts: Mapping[str, Part],
    export_dir: str | Path,
    options: ExportOptions | None = None,
    *,
    staging: str | None = None,
) -> Path | str:
    """Exports the parts of a model as `export_artefact` does; all appear, or none.

    Args:
        parts: directory in the export → part; ``""`` is the top.
        export_dir: must not exist; local, or with a scheme that fsspec knows.
        options: how to export; None = the defaults.
        staging: where a remote export is written first; None = directory for temporary files.

    Returns:
        ``export_dir``; a local one as an absolute path.

    Raises:
        ExportError: as `export_artefact`; says which part.
    """
    weights = fingerprint({name: part.model for name, part in parts.items()})
    options = dataclasses.replace(options or ExportOptions(), weights=weights)
    without_assets = dataclasses.replace(options, asset_files=())
    with published(export_dir, staging=staging) as work:
        for name, part in parts.items():
            with at(f"{name}/") if name else contextlib.nullcontext():
                (work / name).mkdir(exist_ok=True)
                write_part(part, work / name, options if part.with_assets else without_assets)
                _load_again(work / name)
    return os.fspath(export_dir) if storage.is_remote(export_dir) else local_path(export_dir)


def _load_again(directory: Path) -> None:
    """Loads a part as its users will: checksums, config, golden rows, golden batch.

    Raises:
        ExportError: it cannot be loaded, or does not score as it did a moment ago.
    """
    from tzrec.deploy.predictor import Predictor

    try:
        Predictor.load(directory)
    except TzrecError as error:
        raise ExportError(
            f"what was written cannot be loaded again; nothing was published: {error}"
        ) from error
