"""Compares a config with its data files: columns, types, and what Parquet footers say.

No rows are read: only schemas (of a CSV file its first block), and the ranges that Parquet keeps
per column. `tzrec train` and `tzrec eval` do the same before they load torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tzrec.cli.check_columns import (
    Table,
    column_problems,
    constant_label,
    generation_problems,
)
from tzrec.cli.check_sampler import sampler_problems
from tzrec.config.kafka_uri import is_kafka
from tzrec.config.pipeline import Pipeline
from tzrec.config.problem import Problem, in_file_order, render
from tzrec.config.validate.data import dataset_type_of, needed_columns, other_columns
from tzrec.config.validate.frame import Context
from tzrec.datasets.files import expand_paths, open_input
from tzrec.datasets.schema import accepted_type, input_fields, unify
from tzrec.errors import DataError, TzrecError, did_you_mean

INPUTS = ("train_input_path", "eval_input_path")
_THREADS = 8
_CSV_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is looked at.

    Attributes:
        files: of each input path, the first ones.
        statistics: columns times row groups of a file whose ranges are read.
    """

    files: int = 1000
    statistics: int = 100_000


THOROUGH = Effort()
BEFORE_A_RUN = Effort(files=64, statistics=2000)


def check_data(
    pipeline: Pipeline, names: Sequence[str] = INPUTS, effort: Effort = THOROUGH
) -> tuple[list[tuple[str, str]], list[str]]:
    """Compares the config with the files of its input paths.

    Args:
        pipeline: the checked config.
        names: which input paths; empty ones are left out.
        effort: how much is looked at.

    Returns:
        What was found, for the summary, and warnings.

    Raises:
        DataError: files are missing or unreadable, or columns do not fit the config.
    """
    context = Context(pipeline.config)
    lines: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for name in names:
        if not getattr(pipeline.config, name).strip():
            continue
        found = _check_input(context, name, effort)
        lines.append((name.partition("_")[0] + " data", found.text))
        problems += found.problems
    problems += sampler_problems(context)
    ordered = in_file_order(_once(problems), pipeline.source)
    fatal = [problem for problem in ordered if problem.fatal]
    if fatal:
        raise DataError("\n".join(render(problem, pipeline.source) for problem in fatal))
    warnings = [render(p, pipeline.source).removeprefix("warning: ") for p in ordered]
    return lines, warnings


@dataclasses.dataclass
class _Found:
    text: str
    problems: list[Problem]


def _check_input(context: Context, name: str, effort: Effort) -> _Found:
    data_config = context.config.data_config
    if is_kafka(getattr(context.config, name)):
        return _Found("a stream, not looked at", [])
    try:
        files = find_files(getattr(context.config, name), data_config)
    except TzrecError as error:
        near = similar_path(getattr(context.config, name))
        return _Found("", [Problem(name, error.message + near, error.hint)])
    needed = [column for column, _, _ in _columns(context)]
    tables: list[Table] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = _looking(data_config, needed, effort)
        for path, found in zip(files, pool.map(looks, files[: effort.files]), strict=False):
            if isinstance(found, Table):
                tables.append(found)
            else:
                problems.append(_unreadable(name, path, found))
    for table in tables:
        problems += compare(context, table)
    for table in _with_different_types(tables):
        problems += generation_problems(context, table)
    problems += types_differ(context, tables)
    if len(tables) == len(files):
        problems += constant_label(context, tables, getattr(context.config, name))
    if name == "eval_input_path":  # Evaluation needs no event times.
        problems = [p for p in problems if p.where != "data_config.event_time_field"]
    rows = [table.rows for table in tables if table.rows is not None]
    if rows and len(rows) == len(files) and sum(rows) == 0:
        text = getattr(context.config, name)
        what = f"file {text!r} holds" if len(files) == 1 else f"the files of {text!r} hold"
        problems.append(Problem(name, f"{what} no rows"))
    count = f"{sum(rows):,} rows in " if rows and len(rows) == len(tables) else ""
    of_first = f" (of {len(files)})" if len(files) > len(tables) else ""
    plural = "" if len(tables) == 1 else "s"
    return _Found(f"{count}{len(tables)} file{plural}{of_first}", problems)


def _with_different_types(tables: Sequence[Table]) -> list[Table]:
    seen: dict[tuple[Any, ...], Table] = {}
    for table in tables:
        seen.setdefault(tuple((field.name, field.type) for field in table.schema), table)
    return list(seen.values())


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """Keeps the first problem of each place, errors first: files of one table share mistakes."""
    seen: dict[str, Problem] = {}
    for problem in sorted(problems, key=lambda problem: not problem.fatal):
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


def similar_path(text: str) -> str:
    """Returns a suggestion for the first part of an input path that is not there."""
    for part in (part.strip() for part in text.split(",")):
        path = Path(part)
        if not part or "://" in part or path.exists() or not path.parent.is_dir():
            continue
        near = did_you_mean(part, sorted(str(entry) for entry in path.parent.iterdir()))
        if near:
            return near
    return ""


def _unreadable(name: str, path: str, reason: str) -> Problem:
    what = f"file {path!r} cannot be read: {reason}"
    if "CSV parse error" in reason:
        # What follows the numbers is the row itself, which may be binary.
        what = re.sub(r"(got \d+): .*", r"\1", what)
        return Problem(name, what, "is data_config.delimiter right, and every quote closed?")
    return Problem(name, what, "write the file again, or leave it out of the path")


def which_reader(data_config: Any) -> str:
    """Returns the configured reader, or ""."""
    from tzrec.protos.data_pb2 import DatasetType

    if not data_config.HasField("dataset_type"):
        return ""
    return str(DatasetType.Name(data_config.dataset_type))


def _looking(
    data_config: Any, needed: Sequence[str], effort: Effort
) -> Callable[[str], Table | str]:
    def look(path: str) -> Table | str:
        try:
            return read_table(path, data_config, needed, effort)
        except TzrecError as error:
            return error.message
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            return str(error).splitlines()[0] if str(error) else type(error).__name__

    return look


def read_table(path: str, data_config: Any, needed: Sequence[str], effort: Effort) -> Table:
    """Reads the schema of a file, and the footer of a Parquet file."""
    csv = dataset_type_of(path) == "CsvDataset" or (
        not path.endswith(".parquet") and which_reader(data_config) == "CsvDataset"
    )
    if csv:
        # Not closed: the parser reads ahead after its end, into whatever has the file's number.
        return _csv_table(path, open_input(path), data_config)
    with open_input(path) as stream:
        file = pq.ParquetFile(stream)
        metadata = file.metadata
        wanted = set(needed)
        small = metadata.num_row_groups * len(wanted) <= effort.statistics
        ranges = _ranges(metadata, wanted) if small else {}
        return Table(path, file.schema_arrow, metadata.num_rows, ranges)


def _csv_table(path: str, stream: Any, data_config: Any) -> Table:
    declared = input_fields(data_config)
    if stream.size() == 0:
        names = [] if data_config.with_header else list(declared)
        return Table(path, pa.schema([(name, pa.null()) for name in names]), 0, {})
    options = pa_csv.ReadOptions(
        column_names=None if data_config.with_header else list(declared),
        block_size=_CSV_BLOCK,
        use_threads=False,  # with threads an error does not say which row is wrong
    )
    delimiter = pa_csv.ParseOptions(delimiter=data_config.delimiter or ",", newlines_in_values=True)
    types = pa_csv.ConvertOptions(column_types={k: t for k, t in declared.items() if t})
    with pa_csv.open_csv(
        stream, read_options=options, parse_options=delimiter, convert_options=types
    ) as reader:
        has_rows = any(batch.num_rows for batch in _first(reader))
        return Table(path, reader.schema, None if has_rows else 0, {})


def _first(reader: Any) -> Iterator[pa.RecordBatch]:
    """Yields the first batch, if there is one."""
    for batch in reader:
        yield batch
        return


def _ranges(metadata: Any, needed: set[str]) -> dict[str, tuple[Any, Any, int]]:
    ranges: dict[str, tuple[Any, Any, int]] = {}
    names = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    indexes = [index for index, name in enumerate(names) if name in needed]
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in indexes:
            facts = row_group.column(index).statistics
            if facts is None:
                continue
            name, nulls = names[index], facts.null_count or 0
            low, high, before = ranges.get(name, (None, None, 0))
            if facts.has_min_max:  # not where all is null
                low = facts.min if low is None else min(low, facts.min)
                high = facts.max if high is None else max(high, facts.max)
            ranges[name] = (low, high, before + nulls)
    return ranges


def _columns(context: Context) -> list[tuple[str, str, str]]:
    """Returns column, config path and kind of every column that is read."""
    return [*needed_columns(context), *other_columns(context)]


def compare(context: Context, table: Table) -> Iterator[Problem]:
    """Yields what does not fit between a config and one file."""
    names = table.schema.names
    needed = _columns(context)
    if table.rows == 0 and not names:
        return  # an empty file has no columns
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if len(needed) > 1 and not {column for column, _, _ in needed} & set(names):
        yield _no_column_fits(context, table, shown)
        return
    for column, where, what in needed:
        if column in names:
            yield from column_problems(context, table, column, where, what)
            continue
        yield Problem(
            where,
            f"{what} column {column!r} is not in file {table.path!r}{did_you_mean(column, names)}",
            f"columns of the file: {shown}",
        )


def _no_column_fits(context: Context, table: Table, shown: str) -> Problem:
    what = f"none of the columns that the config reads is in file {table.path!r}"
    hint = f"columns of the file: {shown}"
    if table.path.endswith(".parquet"):
        return Problem("feature_configs", what, hint)
    data = context.config.data_config
    if len(table.schema) == 1:
        found = [mark for mark in ("\t", ";", "|", ",", " ") if mark in table.schema.names[0]]
        if found and found[0] != data.delimiter:
            return Problem(
                "data_config.delimiter", what, f"perhaps delimiter: {found[0]!r}; {hint}"
            )
    if data.with_header:
        hint += "; without names in the first line, write input_fields and with_header: false"
        return Problem("data_config.with_header", what, hint)
    return Problem("data_config.input_fields", what, hint)


def types_differ(context: Context, tables: Sequence[Table]) -> Iterator[Problem]:
    """Yields columns whose types in several files cannot be brought together."""
    for column, where, what in _columns(context):
        typed = []
        for table in tables:
            index = table.schema.get_field_index(column)
            found = accepted_type(table.schema.field(index).type) if index >= 0 else None
            if found is not None:
                typed.append((table.path, found))
        try:
            unify(column, typed)
        except DataError as error:
            yield Problem(where, f"{what} {error.message}", error.hint)
