"""Writes an artefact; it appears under its name only when it scores like the model."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from tzrec.config.load import save_message
from tzrec.deploy import artefact, assets, torchscript
from tzrec.deploy import golden as golden_batch
from tzrec.deploy.golden_rows import save_golden_rows
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.parts import Part
from tzrec.deploy.verify import check_finite, check_parity, num_rows
from tzrec.errors import ExportError, Unsupported, at
from tzrec.features.feature import FgMode, create_fg_json
from tzrec.models.wrappers import ScriptWrapper, autocast
from tzrec.protos.pipeline_pb2 import EasyRecConfig

logger = logging.getLogger("tzrec")


def export_artefact(
    *,
    config: EasyRecConfig,
    model: nn.Module,
    features: Sequence[Any],
    golden: dict[str, Tensor],
    export_dir: str | Path,
    options: ExportOptions | None = None,
    rows: pa.RecordBatch | None = None,
) -> Path:
    """Exports a model with its config, and proves that the files score like the model.

    Everything is written to a directory beside ``export_dir``, loaded again from there,
    compared with the model on the golden batch, and renamed at the end: whoever sees
    ``export_dir`` sees a complete, checked artefact.

    Args:
        config: the config that the model was built from; copied, not changed.
        model: `BaseModel` with restored weights on the CPU.
        features: its features.
        golden: one predict-mode batch in parse keys, sparse ids as int64.
        export_dir: must not exist.
        options: how to export; None = the defaults.
        rows: raw columns of the golden batch.

    Returns:
        ``export_dir``.

    Raises:
        ExportError: ``export_dir`` exists, the model cannot be exported, or the export differs
            from it by more than ``options.tolerance``. Nothing is published then.
        Unsupported: ``export_dir`` is not a local path.
    """
    part = Part(model, config, list(features), golden, rows)
    return export_parts({"": part}, export_dir, options)


def export_parts(
    parts: Mapping[str, Part], export_dir: str | Path, options: ExportOptions | None = None
) -> Path:
    """Exports the parts of a model as `export_artefact` does; all appear, or none.

    Args:
        parts: directory in the export → part; ``""`` is the top.
        export_dir: must not exist.
        options: how to export; None = the defaults.

    Returns:
        ``export_dir``.

    Raises:
        ExportError: as `export_artefact`; says which part.
        Unsupported: ``export_dir`` is not a local path.
    """
    options = options or ExportOptions()
    without_assets = dataclasses.replace(options, asset_files=())
    with _published(export_dir) as work:
        for name, part in parts.items():
            with at(f"{name}/") if name else contextlib.nullcontext():
                (work / name).mkdir(exist_ok=True)
                _write_part(part, work / name, options if part.with_assets else without_assets)
                artefact.verify_artefact(work / name)
    return refuse_remote(export_dir)


@contextlib.contextmanager
def _published(export_dir: str | Path) -> Iterator[Path]:
    """Gives a directory to write to, which gets its name when all went well."""
    target = refuse_existing(export_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir()
        yield work
        for path in [*work.rglob("*"), work]:
            _fsync(path)
        refuse_existing(target)
        work.rename(target)
        _fsync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_part(part: Part, work: Path, options: ExportOptions) -> None:
    inputs = _model_inputs(part.golden, part.features)
    _write_config(part.config, work, options)
    _write_features(part.features, part.rows, work)
    wrapper = _script_wrapper(part.model)
    with torchscript.inference_mode_of(wrapper), torch.inference_mode():
        farm_hash = any(getattr(feature, "farm_hash", False) for feature in part.features)
        _write_model(wrapper, inputs, work, options, farm_hash=farm_hash)


def _script_wrapper(model: nn.Module) -> nn.Module:
    return ScriptWrapper(model)


def refuse_existing(export_dir: str | Path) -> Path:
    """Returns the path of an export that can be written.

    Raises:
        ExportError: it exists.
        Unsupported: it is not a local path.
    """
    target = refuse_remote(export_dir)
    if os.path.lexists(target):
        raise ExportError(
            f"export_dir {target} exists already",
            hint="name a new directory: an export never overwrites another one",
        )
    return target


def refuse_remote(export_dir: str | Path) -> Path:
    """Returns the absolute path of an export.

    Raises:
        Unsupported: it is not a local path.
    """
    if "://" in str(export_dir):
        raise Unsupported(f"export to {export_dir}: remote directories come with a later version")
    return Path(export_dir).expanduser().absolute()


def _model_inputs(golden: dict[str, Tensor], features: Sequence[Any]) -> dict[str, Tensor]:
    """Leaves out what is in the batch but is no input (labels)."""
    names = {feature.name for feature in features if not getattr(feature, "is_stub", False)}
    inputs = {key: value for key, value in golden.items() if key.rpartition(".")[0] in names}
    without = names - {key.rpartition(".")[0] for key in inputs}
    if without or not inputs:
        raise ExportError(
            f"the golden batch lacks features: {', '.join(sorted(without)) or 'all'}",
            hint="read it with the features of this config in predict mode",
        )
    if num_rows(inputs) == 0:
        raise ExportError("the golden batch has no rows", hint="train_input_path must hold rows")
    return inputs


def _write_config(config: EasyRecConfig, work: Path, options: ExportOptions) -> None:
    copy = EasyRecConfig()
    copy.CopyFrom(config)
    assets.copy_feature_assets(copy, work)
    assets.copy_asset_files(options.asset_files, work)
    save_message(copy, work / artefact.PIPELINE_CONFIG)
    # QUANT_EMB is said even when off: the interface's default is a silent INT8.
    acc = {"SPARSE_INT64": "1", "QUANT_EMB": options.quantisation or "0"}
    acc |= options.additional_export_config
    (work / artefact.MODEL_ACC).write_text(json.dumps(acc, indent=4) + "\n")


def _write_features(features: Sequence[Any], rows: pa.RecordBatch | None, work: Path) -> None:
    """Writes what serving needs to make features of raw columns."""
    generated = [f for f in features if getattr(f, "fg_mode", FgMode.FG_NONE) is not FgMode.FG_NONE]
    if generated:
        text = json.dumps(create_fg_json(generated, str(work)), indent=4, ensure_ascii=False)
        (work / artefact.FG_JSON).write_bytes(f"{text}\n".encode("utf-8", "surrogatepass"))
    if rows is not None:
        save_golden_rows(work / artefact.GOLDEN_ROWS, rows)


def _write_model(
    wrapper: Any,
    inputs: dict[str, Tensor],
    work: Path,
    options: ExportOptions,
    *,
    farm_hash: bool,
) -> None:
    def eager(data: dict[str, Tensor]) -> dict[str, Tensor]:
        with autocast("cpu", options.mixed_precision):
            return dict(wrapper(data, torchscript.CPU))

    expected = eager(inputs)
    check_finite(expected)
    scripted = torchscript.script_model(wrapper, options.mixed_precision)
    torchscript.save(scripted, work / artefact.SCRIPTED_MODEL, work / artefact.TRACED_CODE)
    golden_batch.save_golden(work / artefact.GOLDEN, inputs, expected)

    loaded = torchscript.load(work / artefact.SCRIPTED_MODEL, torchscript.CPU)
    parity = check_parity(
        eager,
        lambda data: torchscript.run(loaded, data, torchscript.CPU),
        inputs,
        expected=expected,
        tolerance=options.tolerance,
    )
    manifest = artefact.Manifest(
        target=options.target,
        model=type(wrapper.model).__name__,
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        versions=artefact.installed_versions(),
        options=options.to_dict(),
        inputs=golden_batch.specs(inputs),
        outputs=golden_batch.specs(expected),
        parity=parity,
        files=artefact.describe_files(work),
        farm_hash=farm_hash,
    )
    (work / artefact.MANIFEST).write_text(manifest.to_json())
    worst = max(parity["cases"]["golden batch"].values(), default=0.0)
    logger.info("export: largest difference to the trained model %.3g", worst)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
