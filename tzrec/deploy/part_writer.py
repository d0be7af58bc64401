"""Writes one part of an export: config, features, model, and the proof that it scores like it."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from tzrec.config.load import save_message
from tzrec.constant import PIPELINE_CONFIG
from tzrec.datasets import tiling
from tzrec.deploy import artefact, assets, targets, torchscript
from tzrec.deploy import golden as golden_batch
from tzrec.deploy.golden_rows import save_golden_rows
from tzrec.deploy.options import ExportOptions
from tzrec.deploy.parts import Part
from tzrec.deploy.quantise import QuantisedTables, quantise_tables, summary
from tzrec.deploy.verify import (
    GOLDEN_CASE,
    check_finite,
    check_parity,
    distances,
    num_rows,
    parity_cases,
    take_rows,
)
from tzrec.errors import ExportError
from tzrec.features.feature import FgMode, create_fg_json
from tzrec.models.precision import autocast
from tzrec.models.wrappers import ScriptWrapper
from tzrec.protos.pipeline_pb2 import EasyRecConfig

logger = logging.getLogger("tzrec")

Data = dict[str, Tensor]


def write_part(part: Part, work: Path, options: ExportOptions) -> None:
    """Exports a part into a directory and compares it with the model.

    Args:
        part: what is exported.
        work: an empty directory.
        options: how.

    Raises:
        ExportError: the model cannot be exported, or the export differs from it.
    """
    inputs = _model_inputs(part.golden, part.features)
    rows = part.rows
    if options.max_batch_size:
        inputs = take_rows(inputs, options.max_batch_size)
        rows = rows.slice(0, options.max_batch_size) if rows is not None else None
    _write_config(part.config, work, options)
    _write_features(part.features, rows, work)
    gate = _Gate(part, inputs, options)
    parity = gate.write_and_compare(work)
    manifest = artefact.Manifest(
        target=options.target,
        model=type(part.model).__name__,
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        versions=artefact.installed_versions(),
        options=options.to_dict(),
        inputs=golden_batch.specs(gate.inputs),
        outputs=golden_batch.specs(gate.expected),
        parity=parity,
        files=artefact.describe_files(work),
        farm_hash=any(getattr(feature, "farm_hash", False) for feature in part.features),
    )
    (work / artefact.MANIFEST).write_text(manifest.to_json())


class _Gate:
    """Compiles a model and lets it through when its files score like it.

    Args:
        part: what is exported.
        inputs: golden batch, not tiled.
        options: how.

    Attributes:
        inputs: golden batch as the export takes it.
        expected: the model's scores of it, with rounded tables where they get narrow.
    """

    def __init__(self, part: Part, inputs: Data, options: ExportOptions) -> None:
        self._model = part.model
        self._options = options
        self._plain = _script_wrapper(part.model)
        self._users: frozenset[str] = frozenset()
        self.inputs = inputs
        self.expected: Data = {}
        self._cases = parity_cases(inputs)
        if options.input_tile:
            self._users = tiling.user_features(part.features)
            self.inputs = tiling.own_users(inputs)
            self._cases = parity_cases(self.inputs)
            if self._users:
                self._cases["one user"] = tiling.one_user(inputs, self._users)
            else:
                logger.warning("export: no feature is the user's alone: nothing is tiled")

    def write_and_compare(self, work: Path) -> dict[str, Any]:
        """Writes model and golden batch; returns what the manifest says about parity."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torchscript.inference_mode_of(self._plain))
            trained = self._eager(self.inputs)
            check_finite(trained)
            tables = None
            if self._options.quantises:
                tables = quantise_tables(self._model, self._options)
                stack.enter_context(tables.rounded())
            self.expected = self._eager(self.inputs) if tables else trained
            self._write(tables, work)
            golden_batch.save_golden(work / artefact.GOLDEN, self.inputs, self.expected)
            parity = self._compare(work)
        worst = max(parity["cases"][GOLDEN_CASE].values(), default=0.0)
        logger.info("export: largest difference to the trained model %.3g", worst)
        if tables:
            difference = distances(trained, self.expected)
            parity["quantised"] = {"tables": tables.report, "difference": difference}
            logger.info("export: %s", summary(tables.report))
            for name, found in difference.items():
                logger.info(
                    "export: rounded rows change %s by %.3g on average, %.3g at most",
                    name,
                    found["mean"],
                    found["largest"],
                )
        return parity

    def _write(self, tables: QuantisedTables | None, work: Path) -> None:
        wrapper = self._plain
        if self._options.input_tile:
            wrapper = _script_wrapper(self._model, input_tile=self._options.input_tile).eval()
        narrow = tables.in_model() if tables else contextlib.nullcontext()
        with narrow, torch.inference_mode():
            targets.write_model(wrapper, self.inputs, work, self._options)

    def _compare(self, work: Path) -> dict[str, Any]:
        options = self._options
        loaded = targets.load_model(work, options.target, torchscript.CPU)
        report = check_parity(
            self._eager,
            lambda data: torchscript.run(loaded, data, torchscript.CPU),
            self._cases,
            expected=self.expected,
            tolerance=options.largest_difference,
            relative=options.relative_difference,
            scaled=options.scales_difference,
        )
        if options.mixed_precision and options.target == "torchscript":
            # The rounding of 16 bits hides what is wrong with weights and graph: without it
            # both are compared as closely as any others.
            plain = torchscript.without_autocast(loaded)
            report["without_mixed_precision"] = check_parity(
                self._eager_fp32,
                lambda data: torchscript.run(plain, data, torchscript.CPU),
                self._cases,
                expected=self._eager_fp32(self.inputs),
                tolerance=options.plain_difference,
            )
        return report

    def _eager(self, data: Data) -> Data:
        return self._scores(data, self._options.mixed_precision)

    def _eager_fp32(self, data: Data) -> Data:
        return self._scores(data, "")

    def _scores(self, data: Data, mixed_precision: str) -> Data:
        if self._options.input_tile:
            data = tiling.untiled(data, self._users)
        with torch.inference_mode(), autocast("cpu", mixed_precision):
            return dict(self._plain(data, torchscript.CPU))


def _script_wrapper(model: nn.Module, **options: Any) -> nn.Module:
    return ScriptWrapper(model, **options)


def _model_inputs(golden: dict[str, Tensor], features: Sequence[Any]) -> dict[str, Tensor]:
    """Leaves out what is in the batch but is no input: labels, weights that a batch made up."""
    own = {f.name: f.is_weighted for f in features if not getattr(f, "is_stub", False)}
    names = set(own)
    inputs = {}
    for key, value in golden.items():
        name, _, kind = key.rpartition(".")
        if name in own and (kind != "weights" or own[name]):
            inputs[key] = value
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
    save_message(copy, work / PIPELINE_CONFIG)
    (work / artefact.MODEL_ACC).write_text(json.dumps(options.model_acc(), indent=4) + "\n")


def _write_features(features: Sequence[Any], rows: pa.RecordBatch | None, work: Path) -> None:
    """Writes what serving needs to make features of raw columns."""
    generated = [f for f in features if getattr(f, "fg_mode", FgMode.FG_NONE) is not FgMode.FG_NONE]
    if generated:
        text = json.dumps(create_fg_json(generated, str(work)), indent=4, ensure_ascii=False)
        (work / artefact.FG_JSON).write_bytes(f"{text}\n".encode("utf-8", "surrogatepass"))
    if rows is not None:
        save_golden_rows(work / artefact.GOLDEN_ROWS, rows)
