"""Files of generated rows."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tzrec.demo.clicklog import exact_auc
from tzrec.demo.shape import trees
from tzrec.demo.shape.roles import sampler_of
from tzrec.demo.shape.shape import PROBABILITY, Shape
from tzrec.demo.shape.tables import Table, table_names, write_tables
from tzrec.demo.shape.world import Size
from tzrec.errors import ConfigError
from tzrec.protos.data_pb2 import CsvDataset, DataConfig
from tzrec.protos.pipeline_pb2 import EasyRecConfig
from tzrec.storage import file_system, list_directory

if TYPE_CHECKING:
    from tzrec.datasets.writer import BaseWriter

PARTS = ("train", "eval")
TABLES = "tables"
FORMATS = ("parquet", "csv")
_CHUNK_ROWS = 65_536
_RANKING = ("recall_at_k", "hitrate_at_k")
_ROWS_OF_ITEM, _ROWS_OF_USER, _BATCHES_OF_ITEMS = 10, 10, 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is written.

    Attributes:
        out: directory; gets ``train/part-0.parquet``, ``eval/part-0.parquet``, … and in
            ``tables/`` what a sampler draws from.
        rows: rows to train on.
        eval_rows: rows to evaluate on.
        files: files of the training rows.
        seed: of the rows.
        format: ``parquet`` or ``csv``.
        overwrite: replace files of an earlier plan.
        items: in matching, how many there are at most; 0 = as the rows suggest.
        users: the same of users.
    """

    out: str
    rows: int = 100_000
    eval_rows: int = 10_000
    files: int = 1
    seed: int = 0
    format: str = "parquet"
    overwrite: bool = False
    items: int = 0
    users: int = 0

    def size(self, data: DataConfig) -> Size:
        """Returns how many items and users there are at most, in matching.

        Left to the rows there are several times as many items as in a batch, as negatives are
        those that no row of the batch has taken.
        """
        items = max(self.rows // _ROWS_OF_ITEM, _BATCHES_OF_ITEMS * data.batch_size)
        users = max(self.rows // _ROWS_OF_USER, 1)
        return Size(self.items or items, self.users or users)

    def folder(self, part: str) -> str:
        """Returns the directory of ``train``, ``eval`` or ``tables``."""
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
        tables: what a sampler draws from.
        recalls: in matching, K → the recall at K of who knows all tastes.
        num_negatives: in matching, items that the one that was taken is ranked among.
    """

    rows: dict[str, int]
    sizes: dict[str, int]
    columns: list[str]
    signal: list[str]
    shares: dict[str, float]
    bounds: dict[str, float | None]
    tables: list[Table] = dataclasses.field(default_factory=list)
    recalls: dict[int, float] = dataclasses.field(default_factory=dict)
    num_negatives: int = 0


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
    tables = table_names(config)
    if tables:
        _make_room(plan.folder(TABLES), overwrite=plan.overwrite, tables=tables)
    size = plan.size(config.data_config)
    if trees.has_tree(config):
        size = trees.fit(config, size)
    shape = Shape(config, as_text=plan.format == "csv", size=size)
    kept: dict[str, list[np.ndarray]] = {}
    positives: list[pa.Table] = []
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
                    elif tables:
                        positives.append(shape.positives(table))
    labels = [task.label for task in shape.tasks.binary]
    truth = {label: np.concatenate(kept[label]) for label in labels}
    scores = {label: np.concatenate(kept[_probability(label, labels)]) for label in labels}
    ranked = _ranked(config, shape)
    return Written(
        rows={"train": plan.rows, "eval": plan.eval_rows},
        sizes={part: _size(plan.folder(part)) for part in PARTS},
        columns=columns,
        signal=shape.signal_features,
        shares={label: float(ones.mean()) for label, ones in truth.items()},
        bounds={label: _auc(truth[label], scores[label]) for label in labels},
        tables=_tables_of_sampler(config, shape, plan, positives),
        **ranked,
    )


def _tables_of_sampler(
    config: EasyRecConfig, shape: Shape, plan: Plan, positives: list[pa.Table]
) -> list[Table]:
    if not positives:
        return []
    folder = plan.folder(TABLES)
    system, inner = file_system(folder)
    system.makedirs(inner, exist_ok=True)
    return write_tables(config, shape, folder, pa.concat_tables(positives))


def _ranked(config: EasyRecConfig, shape: Shape) -> dict[str, Any]:
    """Returns what is known about ranking in matching: how many items, and how well it can go."""
    sampler = sampler_of(config)
    metrics = [metric.WhichOneof("metric") for metric in config.model_config.metrics]
    tops = sorted(
        {
            int(getattr(metric, name).top_k)
            for metric, name in zip(config.model_config.metrics, metrics, strict=True)
            if name in _RANKING
        }
    )
    if shape.world is None or not tops:
        return {}
    num_negatives = int(getattr(sampler, "num_sample", config.data_config.batch_size - 1))
    num_negatives = int(getattr(sampler, "num_eval_sample", 0)) or num_negatives
    past = bool(shape.world.roles.past)
    recalls = shape.world.tastes.ceilings(num_negatives, tops, past=past)
    return {"recalls": recalls, "num_negatives": num_negatives}


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


def _make_room(folder: str, *, overwrite: bool, tables: Sequence[str] | None = None) -> None:
    """Removes what an earlier plan left in a directory, and nothing else."""
    system, inner = file_system(folder)
    suffixes = tuple(f".{name}" for name in FORMATS)
    found = list_directory(folder)
    ours = [name for name in found if name.startswith("part-") and name.endswith(suffixes)]
    if tables is not None:
        ours = [name for name in found if name in tables]
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
        system.rm(f"{inner}/{name}", recursive=True)


def _size(folder: str) -> int:
    system, inner = file_system(folder)
    return sum(int(system.size(f"{inner}/{name}")) for name in list_directory(folder))
