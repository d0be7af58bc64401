"""Scores raw rows with an exported model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tzrec.batch import Batch
from tzrec.config import load_pipeline_config
from tzrec.constant import PIPELINE_CONFIG
from tzrec.datasets.data_parser import DataParser
from tzrec.datasets.schema import input_fields
from tzrec.datasets.tiling import own_users
from tzrec.deploy import artefact, assets, golden, targets, torchscript
from tzrec.deploy.golden_rows import check_golden_rows, load_golden_rows
from tzrec.deploy.options import refuse_device
from tzrec.deploy.remote import Staged, staged
from tzrec.deploy.rows import ColumnType, repeat_short, request_columns, to_columns
from tzrec.deploy.verify import compare, difference_table
from tzrec.errors import ServingError
from tzrec.features.feature import FgMode
from tzrec.training.build import build_features

# Another machine adds numbers in another order; a broken model is further off.
_SELF_CHECK_TOLERANCE = 1e-4


class Predictor:
    """An exported model with the parser that it was trained with; threads may share one.

    ::

        predictor = Predictor.load("export/")
        predictor.predict({"user_id": [1, 2], "price": [0.5, 0.7]})["probs"]
        predictor.predict_request({"user_id": [1]}, {"price": [0.5, 0.7]})["probs"]

    Make one with `load`. It starts no threads and sets nothing of the process; for requests of
    some hundred rows from several threads ``torch.set_num_threads(1)`` is usually best.

    Attributes:
        manifest: versions, inputs, outputs, options.
        config: the pipeline config of the export; read only.
        features: its features.
        device: where the model runs.
    """

    def __init__(
        self,
        module: Any,
        *,
        manifest: artefact.Manifest,
        config: Any,
        device: torch.device,
        rows: pa.Table | None = None,
    ) -> None:
        self.manifest = manifest
        self.config = config
        self.device = device
        self.features = build_features(
            config.data_config, config.feature_configs, farm_hash=manifest.farm_hash
        )
        self._module = module
        # One thread of feature generation: a pool of them costs more than a request takes.
        self._parser = DataParser(
            self.features,
            force_base_data_group=config.data_config.force_base_data_group,
            input_tile=manifest.options.get("input_tile", 0),
        )
        self._rows = rows
        self._types = self._column_types()
        self._files: Staged | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        self_check: bool = True,
    ) -> Predictor:
        """Loads an export.

        Args:
            path: exported directory, here or where fsspec reads (``s3://…``).
            device: where to run it.
            self_check: parse the export's golden rows, score its golden batch, and compare; this
                also warms parser and model up.

        Raises:
            ServingError: the directory is not a whole, untouched export that what is installed
                can read, or it does not score here as it did where it was written.
            MissingDependencyError: no installed package knows the scheme of the path.
        """
        files = staged(path)
        with files.named():
            predictor = cls._load(files.directory, torch.device(device), self_check)
        predictor._files = files  # a copy of a remote directory goes with the predictor
        return predictor

    @classmethod
    def _load(cls, directory: Path, where: torch.device, self_check: bool) -> Predictor:
        manifest = artefact.verify_artefact(directory)
        refuse_device(manifest.options, where.type)
        config = load_pipeline_config(directory / PIPELINE_CONFIG, True)
        assets.resolve_feature_assets(config, directory)
        module = targets.load_model(directory, manifest.target, where)
        rows = None
        if artefact.GOLDEN_ROWS in manifest.files:
            rows = load_golden_rows(directory / artefact.GOLDEN_ROWS)
        predictor = cls(module, manifest=manifest, config=config, device=where, rows=rows)
        if self_check:
            predictor.check(directory / artefact.GOLDEN)
        return predictor

    @property
    def input_columns(self) -> list[str]:
        """Raw columns that `predict` reads."""
        return list(self._types)

    @property
    def column_types(self) -> dict[str, pa.DataType]:
        """Types of `input_columns`: as declared, else as trained, else what features read."""
        return {name: t.declared or t.trained or t.unknown for name, t in self._types.items()}

    def columns(self, rows: Any, names: Sequence[str]) -> dict[str, pa.Array]:
        """Returns some of `input_columns` of rows, typed as `predict` does."""
        return to_columns(rows, {name: self._types[name] for name in names})

    @property
    def input_tile(self) -> int:
        """How the model repeats features of users, see `tzrec.datasets.tiling`; 0 = not."""
        return self._parser.input_tile

    @property
    def output_names(self) -> list[str]:
        """Names of the scores, sorted."""
        return sorted(self.manifest.outputs)

    def predict(self, rows: Any) -> dict[str, np.ndarray]:
        """Scores rows.

        Args:
            rows: dict of columns, pandas.DataFrame, or pyarrow RecordBatch or Table; more
                columns than `input_columns` do no harm.

        Returns:
            Output → array with one entry a row (B, ...), in row order; floats as float32.

        Raises:
            DataError: a column is missing or of another length, or an id is out of range.
            FeatureError: a value cannot become its feature.
        """
        return self._scores(self.parse(rows))

    def predict_request(self, context: Any, items: Any) -> dict[str, np.ndarray]:
        """Scores the candidates of one user; the same as `predict` on the context repeated.

        Features of the context are made once. A model that was exported with ``input_tile`` also
        computes what depends on the user alone only once.

        Args:
            context: the columns that all candidates share, of one row: ``{"user_id": [7]}``.
            items: the other columns, one row a candidate; both in any form of `predict`.

        Returns:
            Output → array with one entry a candidate (B, ...), in their order.

        Raises:
            DataError: as `predict`; or a column is in both, or the context has not one row.
            FeatureError: a value cannot become its feature.
        """
        return self._scores(self.parse_request(context, items))

    def parse(self, rows: Any) -> dict[str, Tensor] | None:
        """Returns the parse keys of rows, the input of `forward`; None for no rows."""
        columns = to_columns(rows, self._types)
        if not len(next(iter(columns.values()))):
            return None
        return self._parser.parse(columns)

    def parse_request(self, context: Any, items: Any) -> dict[str, Tensor] | None:
        """Returns the parse keys of a request, the input of `forward`; None for no items."""
        columns, num_items = request_columns(context, items, self._types)
        if not num_items:
            return None
        if not self._parser.input_tile:
            columns = repeat_short(columns, num_items)
        return self._parser.parse_request(columns, num_items)

    def _scores(self, parsed: dict[str, Tensor] | None) -> dict[str, np.ndarray]:
        if parsed is None:
            return {
                name: np.empty((0, *spec.shape), dtype=_numpy_type(spec.dtype))
                for name, spec in sorted(self.manifest.outputs.items())
            }
        outputs = self.forward(parsed)
        return {name: golden.to_numpy(value) for name, value in sorted(outputs.items())}

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scores parsed rows: parse keys → tensors to output → tensor (B, ...)."""
        return torchscript.run(self._module, data, self.device)

    def forward_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Scores a batch of a loader, whose rows may be of different users."""
        data = batch.to_dict(sparse_dtype=torch.int64)
        return self.forward(own_users(data) if self._parser.input_tile else data)

    def check(self, path: Path) -> None:
        """Scores a golden batch twice, as the second run is the compiled one, and compares.

        The golden rows, where there are any, must become this batch.

        Raises:
            ServingError: the scores, or the features, are not the recorded ones.
        """
        inputs, expected = golden.load_golden(path)
        tolerance = _SELF_CHECK_TOLERANCE
        if self.manifest.options.get("mixed_precision"):
            tolerance = max(tolerance, self.manifest.options["tolerance"])
        if self._rows is not None:
            check_golden_rows(self._rows, inputs, self.parse)
        for _ in range(2):
            outputs = self.forward(inputs)
            actual = {name: torch.from_numpy(golden.to_numpy(v)) for name, v in outputs.items()}
            differences = compare(expected, actual, relative=tolerance)
            if any(d.max_abs > tolerance for d in differences):
                raise ServingError(
                    f"{path.parent} does not score here as where it was exported "
                    f"({self.manifest.versions})\n{difference_table(differences)}"
                )

    def _column_types(self) -> dict[str, ColumnType]:
        declared = input_fields(self.config.data_config)
        schema = self._rows.schema if self._rows is not None else pa.schema([])
        trained = {field.name: field.type for field in schema}
        unknown: dict[str, pa.DataType] = {}
        for feature in self.features:
            kind = pa.int64() if feature.is_sparse else pa.float32()
            if feature.is_weighted or feature.fg_mode is not FgMode.FG_NONE:
                kind = pa.string()
            for name in feature.inputs:
                unknown.setdefault(name, kind)
        return {
            name: ColumnType(declared.get(name), unknown.get(name, pa.string()), trained.get(name))
            for name in self._parser.input_columns
        }


def _numpy_type(name: str) -> str:
    return "float32" if name in ("bfloat16", "float16") else name
