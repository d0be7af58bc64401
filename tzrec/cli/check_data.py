"""Compares a config with its data files: columns, types, and what Parquet footers say.

No rows are read: only schemas, and the ranges that Parquet keeps per column.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tzrec.config.feature_facts import FeatureFacts
from tzrec.config.messages import which_field
from tzrec.config.pipeline import Pipeline
from tzrec.config.problem import Problem, in_file_order, render
from tzrec.config.validate.data import dataset_type_of, needed_columns
from tzrec.config.validate.frame import Context
from tzrec.datasets.files import expand_paths
from tzrec.errors import DataError, TzrecError, did_you_mean

_MAX_FILES = 1000


@dataclasses.dataclass
class Table:
    """What is known about one file without reading its rows.

    Attributes:
        path: the file.
        schema: its columns.
        rows: number of rows, None for CSV.
        ranges: column → (smallest, largest value, number of nulls) where the file says; the
            values are None where all are null.
    """

    path: str
    schema: pa.Schema
    rows: int | None
    ranges: dict[str, tuple[Any, Any, int]]


def check_data(pipeline: Pipeline) -> list[tuple[str, str]]:
    """Compares the config with the files of its two input paths.

    Returns:
        What was found, for the summary.

    Raises:
        DataError: files are missing or unreadable, or columns do not fit the config.
    """
    config = pipeline.config
    context = Context(config)
    lines, problems = [], []
    for name in ("train_input_path", "eval_input_path"):
        text = getattr(config, name)
        if not text.strip():
            continue
        try:
            files = find_files(text, config.data_config)
        except TzrecError as error:
            problems.append(Problem(name, error.message, error.hint))
            continue
        tables = []
        for path in files[:_MAX_FILES]:
            try:
                tables.append(read_table(path, config.data_config))
            except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
                first = str(error).splitlines()[0]
                problems.append(Problem(name, f"file {path!r} cannot be read: {first}"))
        for table in tables:
            problems += compare(context, table)
        lines.append((name.partition("_")[0] + " data", _describe(name, files, tables, problems)))
    if problems:
        ordered = in_file_order(_once(problems), pipeline.source)
        raise DataError("\n".join(render(problem, pipeline.source) for problem in ordered))
    return lines


def _describe(
    name: str, files: Sequence[str], tables: Sequence[Table], problems: list[Problem]
) -> str:
    rows = [table.rows for table in tables if table.rows is not None]
    if rows and len(rows) == len(tables) and sum(rows) == 0:
        problems.append(Problem(name, f"the {len(files)} file(s) hold no rows"))
    count = f"{sum(rows):,} rows in " if rows else ""
    return f"{count}{len(files)} file{'s' if len(files) > 1 else ''}"


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """Keeps the first problem of each place: files of one table share their mistakes."""
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.where + problem.what.partition(" file ")[0], problem)
    seen: dict[str, Problem] = {}
    for problem in first.values():
        seen.setdefault(problem.where, problem)
    return list(seen.values())


def find_files(text: str, data_config: Any) -> list[str]:
    """Returns the files of an input path, those that training would read.

    Raises:
        DataError: a part of it stands for no file.
        MissingDependencyError: there is no file system of that name.
    """
    kind = dataset_type_of(text.split(",")[0].strip()) or which_reader(data_config)
    return expand_paths(text, ".csv" if kind == "CsvDataset" else ".parquet")


def read_table(path: str, data_config: Any) -> Table:
    """Reads the schema of a file, and the footer of a Parquet file."""
    import fsspec

    csv = dataset_type_of(path) == "CsvDataset" or (
        not path.endswith(".parquet") and which_reader(data_config) == "CsvDataset"
    )
    with fsspec.open(path, "rb") as stream:
        if csv:
            return Table(path, _csv_schema(stream, data_config), None, {})
        file = pq.ParquetFile(stream)
        return Table(path, file.schema_arrow, file.metadata.num_rows, _ranges(file.metadata))


def which_reader(data_config: Any) -> str:
    """Returns the configured reader, or ""."""
    from tzrec.protos.data_pb2 import DatasetType

    if not data_config.HasField("dataset_type"):
        return ""
    return str(DatasetType.Name(data_config.dataset_type))


def _csv_schema(stream: Any, data_config: Any) -> pa.Schema:
    names = [field.input_name for field in data_config.input_fields]
    if not names and data_config.input_fields_str:
        parts = data_config.input_fields_str.split(";")
        names = [part.partition(":")[0].strip() for part in parts if part.strip()]
    options = pa_csv.ReadOptions(
        column_names=None if data_config.with_header else names, block_size=1 << 20
    )
    delimiter = pa_csv.ParseOptions(delimiter=data_config.delimiter or ",")
    with pa_csv.open_csv(stream, read_options=options, parse_options=delimiter) as reader:
        return reader.schema


def _ranges(metadata: Any) -> dict[str, tuple[Any, Any, int]]:
    ranges: dict[str, tuple[Any, Any, int]] = {}
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            facts = column.statistics
            if facts is None or "." in column.path_in_schema:
                continue
            name, nulls = column.path_in_schema, facts.null_count or 0
            low, high, before = ranges.get(name, (None, None, 0))
            if facts.has_min_max:  # not where all is null
                low = facts.min if low is None else min(low, facts.min)
                high = facts.max if high is None else max(high, facts.max)
            ranges[name] = (low, high, before + nulls)
    return ranges


def compare(context: Context, table: Table) -> Iterator[Problem]:
    """Yields what does not fit between a config and one file."""
    names = table.schema.names
    features = context.features_by_name
    for column, where, what in needed_columns(context):
        if column not in names:
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            yield Problem(
                where,
                f"{what} column {column!r} is not in file {table.path!r}"
                f"{did_you_mean(column, names)}",
                f"columns of the file: {shown}",
            )
            continue
        kind = table.schema.field(column).type
        if what == "feature":
            problem = _feature_problem(features[column], kind, table)
        else:
            problem = _label_problem(context, column, what, kind, table)
        if problem:
            yield Problem(where, f"{what} column {column!r} {problem} (file {table.path!r})")


def _feature_problem(feature: FeatureFacts, kind: pa.DataType, table: Table) -> str:
    inner = kind
    while pa.types.is_list(inner) or pa.types.is_large_list(inner):
        inner = inner.value_type
    text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
    if pa.types.is_dictionary(inner):
        return ""
    if feature.is_sparse:
        if not (pa.types.is_integer(inner) or text or pa.types.is_map(inner)):
            return f"is {kind}, but ids must be integers or text"
        return _range_problem(feature, table)
    if not (pa.types.is_integer(inner) or pa.types.is_floating(inner) or text):
        return f"is {kind}, but must be numbers"
    if feature.config.fg_encoded_default_value or feature.is_sequence:
        return ""
    nulls = table.ranges.get(feature.name, (0, 0, 0))[2]
    if nulls:
        return f"has {nulls:,} missing values; say what they mean with fg_encoded_default_value"
    return ""


def _range_problem(feature: FeatureFacts, table: Table) -> str:
    low, high, _ = table.ranges.get(feature.name, (None, None, 0))
    rows = feature.rows
    if not isinstance(low, int) or isinstance(low, bool):
        return ""
    if low < 0:
        return f"holds the id {low}; ids must not be negative"
    if rows is not None and high >= rows:
        return f"holds the id {high}, but the table has {rows} rows (ids 0 to {rows - 1})"
    return ""


def _label_problem(
    context: Context, column: str, what: str, kind: pa.DataType, table: Table
) -> str:
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if what == "sample weight":
        return "" if pa.types.is_floating(kind) else f"is {kind}, but weights must be float"
    if not (pa.types.is_integer(inner) or pa.types.is_floating(inner)):
        return f"is {kind}, but labels must be numbers"
    low, high, nulls = table.ranges.get(column, (None, None, 0))
    if nulls:
        return f"has {nulls:,} missing values"
    if low is None or column != context.config.data_config.label_fields[0]:
        return ""
    losses = {which_field(loss, "loss") for loss in context.config.model_config.losses}
    classes = context.config.model_config.num_class
    if losses & {"binary_cross_entropy", "binary_focal_loss"} and (low < 0 or high > 1):
        return f"holds values from {low} to {high}, but the loss takes 0 to 1"
    if losses & {"softmax_cross_entropy", "jrc_loss"} and (low < 0 or high >= classes):
        return f"holds classes from {low} to {high}, but num_class is {classes}"
    return ""
