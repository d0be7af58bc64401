"""Files of generated rows."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tzrec.demo.clicklog import exact_auc
from tzrec.demo.shape.shape import PROBABILITY, Shape
from tzrec.errors import ConfigError
from tzrec.protos.data_pb2 import CsvDataset
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.storage import file_system, list_directory

if TYPE_CHECKING:
    from tzrec.datasets.writer import BaseWriter

PARTS = ("train", "eval")
FORMATS = ("parquet", "csv")
_CHUNK_ROWS = 65_536


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is written.

    Attributes:
        out: directory; gets ``train/part-0.parquet``, ``eval/part-0.parquet``, …
        rows: rows to train on.
        eval_rows: rows to evaluate on.
        files: files of the training rows.
        seed: of the rows.
        format: ``parquet`` or ``csv``.
        overwrite: replace files of an earlier plan.
    """

    out: str
    rows: int = 100_000
    eval_rows: int = 10_000
    files: int = 1
    seed: int = 0
    format: str = "parquet"
    overwrite: bool = False

    def folder(self, part: str) -> str:
        """Returns the directory of ``train`` or ``eval``."""
        return posixpath.join(self.out, part)


@dataclasses.dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        rows: part → rows.
        sizes: part → bytes.
        columns: of the files.
        signal: features that the labels depend on.
        shares: label → share of ones among the evaluation rows.
        bounds: label → AUC of the true probabilities there, None where there is one class.
    """

    rows: dict[str, int]
    sizes: dict[str, int]
    columns: list[str]
    signal: list[str]
    shares: dict[str, float]
    bounds: dict[str, float | None]


def write(config: EasyRecConfig, plan: Plan) -> Written:
    """Writes rows that fit a config.

    Args:
        config: a checked config.
        plan: where and how many.

    Raises:
        ConfigError: there is something else at the output, or the features contradict each other.
        DataError: a file cannot be written.
    """
    for part in PARTS:
        _make_room(plan.folder(part), overwrite=plan.overwrite)
    shape = Shape(config, as_text=plan.format == "csv")
    kept: dict[str, list[np.ndarray]] = {}
    columns: list[str] = []
    for number, part in enumerate(PARTS):
        rows, files = (plan.rows, plan.files) if part == "train" else (plan.eval_rows, 1)
        for file in range(files):
            start, stop = rows * file // files, rows * (file + 1) // files
            with _writer(config, plan, part, file) as writer:
                seed = [plan.seed, number, file]
                offset = start + number * plan.rows
                for table in _tables(shape, stop - start, seed, offset):
                    arranged = _arranged(table, config, plan)
                    writer.write({n: arranged[n].combine_chunks() for n in arranged.column_names})
                    columns = arranged.column_names
                    if part == "eval":
                        _keep(table, kept)
    labels = [task.label for task in shape.tasks.binary]
    truth = {label: np.concatenate(kept[label]) for label in labels}
    scores = {label: np.concatenate(kept[_probability(label, labels)]) for label in labels}
    return Written(
        rows={"train": plan.rows, "eval": plan.eval_rows},
        sizes={part: _size(plan.folder(part)) for part in PARTS},
        columns=columns,
        signal=shape.signal_features,
        shares={label: float(ones.mean()) for label, ones in truth.items()},
        bounds={label: _auc(truth[label], scores[label]) for label in labels},
    )


def _tables(shape: Shape, rows: int, seed: list[int], offset: int) -> Iterator[pa.Table]:
    """Yields the rows of a file in pieces, so that memory does not grow with it."""
    for number, start in enumerate(range(0, rows, _CHUNK_ROWS)):
        count = min(_CHUNK_ROWS, rows - start)
        yield shape.table(count, seed=[*seed, number], start=offset + start)


def _probability(label: str, labels: list[str]) -> str:
    return PROBABILITY if len(labels) == 1 else f"{PROBABILITY}_{label}"


def _keep(table: pa.Table, kept: dict[str, list[np.ndarray]]) -> None:
    """Keeps numbers of the evaluation rows that the bounds are made of."""
    for name in table.column_names:
        if pa.types.is_integer(table[name].type) or name.startswith(PROBABILITY):
            kept.setdefault(name, []).append(table[name].to_numpy())


def _auc(label: np.ndarray, score: np.ndarray) -> float | None:
    return exact_auc(label, score) if 0 < label.sum() < len(label) else None


def _arranged(table: pa.Table, config: EasyRecConfig, plan: Plan) -> pa.Table:
    """Returns the columns in the order of the config, where a file without a header needs it."""
    data = config.data_config
    if plan.format != "csv" or not _without_header(config):
        return table
    from tzrec.datasets.schema import input_fields

    declared = input_fields(data)
    nothing = pa.nulls(table.num_rows, pa.string())
    return pa.table({n: table[n] if n in table.column_names else nothing for n in declared})


def _without_header(config: EasyRecConfig) -> bool:
    """Whether a config reads CSV files without a header."""
    data = config.data_config
    return data.dataset_type == CsvDataset and not data.with_header


def _writer(config: EasyRecConfig, plan: Plan, part: str, file: int) -> BaseWriter:
    from tzrec.datasets.dataset import create_writer

    if plan.format == "parquet":
        return create_writer(plan.folder(part), "ParquetWriter", rank=file)
    return _csv_writer(config, plan.folder(part), file)


def _csv_writer(config: EasyRecConfig, folder: str, file: int) -> BaseWriter:
    """Returns a writer in the CSV format that the config reads."""
    import pyarrow.csv as pa_csv

    from tzrec.datasets.writer import BaseWriter

    options = pa_csv.WriteOptions(
        include_header=not _without_header(config),
        delimiter=config.data_config.delimiter,
    )

    class Writer(BaseWriter):
        suffix = ".csv"

        def _start(self, sink: pa.NativeFile, schema: pa.Schema) -> Any:
            return pa_csv.CSVWriter(sink, schema, write_options=options)

    return Writer(folder, rank=file)


def _make_room(folder: str, *, overwrite: bool) -> None:
    """Removes what an earlier plan left in a directory, and nothing else."""
    system, inner = file_system(folder)
    suffixes = tuple(f".{name}" for name in FORMATS)
    found = list_directory(folder)
    ours = [name for name in found if name.startswith("part-") and name.endswith(suffixes)]
    others = sorted(set(found) - set(ours))
    if others:
        raise ConfigError(
            f"--out: {folder} holds {others[0]!r}, which was not generated",
            hint="name another directory",
        )
    if ours and not overwrite:
        raise ConfigError(
            f"--out: {folder} holds {len(ours)} file(s) already, for example {ours[0]}",
            hint="name another directory, or say --overwrite",
        )
    for name in ours:
        system.rm_file(f"{inner}/{name}")


def _size(folder: str) -> int:
    system, inner = file_system(folder)
    return sum(int(system.size(f"{inner}/{name}")) for name in list_directory(folder))
