"""Feature generation offline: tables in, tables out, and statistics of tables."""

from __future__ import annotations

import dataclasses
import posixpath
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tzrec.errors import ConfigError
from tzrec.fg.arrow_out import encoded, unbucketized
from tzrec.fg.kernels import warm_up
from tzrec.fg.statistics import FeatureStatistics
from tzrec.storage import file_system, is_directory, list_directory, remove_tree
from tzrec.tools.fg_setup import FgSetup, open_reader, setup_of
from tzrec.tools.shards import Work, logger, num_processes, run_shards

if TYPE_CHECKING:
    from tzrec.datasets.reader import BaseReader
    from tzrec.protos.pipeline_pb2 import EasyRecConfig

ALL_COLUMNS = "ALL_COLUMNS"
_SUFFIX = ".parquet"
_GROUP_ROWS = 65536
_GROUP_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Options:
    """How a table is worked on.

    Attributes:
        processes: number of processes, None = as many as are worth their start.
        batch_size: rows at a time.
        bucketize_later: write values before ids, for ``FG_BUCKETIZE``.
        reserve: columns that are passed on beside labels and weights; ``ALL_COLUMNS`` alone
            means all that do not have the name of a feature.
        overwrite: replace the Parquet files of the output directory.
    """

    processes: int | None = None
    batch_size: int = 8192
    bucketize_later: bool = False
    reserve: Sequence[str] = ()
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class Generated:
    """What `generate` did.

    Attributes:
        rows: rows written.
        bad_rows: rows that could not be used and were left out.
        columns: names of the columns.
        files: paths of the files.
        seconds: how long it took.
    """

    rows: int
    bad_rows: int
    columns: tuple[str, ...]
    files: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        rate = self.rows / max(self.seconds, 1e-9)
        count = f"{len(self.files)} file{'' if len(self.files) == 1 else 's'}"
        bad = f", {self.bad_rows:,} bad rows left out" if self.bad_rows else ""
        return f"{self.rows:,} rows in {self.seconds:.1f} s ({rate:,.0f} rows/s), {count}{bad}"


def generate(config: EasyRecConfig, input_path: str, output: str, options: Options) -> Generated:
    """Generates the features of a table.

    Each process reads, computes and writes a part of the rows; parts are in the order of rows.
    All files appear in the end, or none.

    Args:
        config: features, labels, weights, format of the input.
        input_path: comma list of files, globs and directories.
        output: directory for ``part-00000.parquet``, ….
        options: how.

    Raises:
        ConfigError: nothing is to be generated, output columns have the same name, or the
            output holds files already.
        DataError: the input cannot be read.
        FeatureError: a value cannot be read, and ``max_bad_rows`` does not allow to leave its row
            out; names file and row.
    """
    started = time.monotonic()
    setup = setup_of(config)
    if options.bucketize_later and setup.bucketize_only:
        raise ConfigError(
            "data_config.fg_mode is FG_BUCKETIZE: values before ids are what the input holds"
        )
    warm_up(logger.info)
    handler = setup.handler()
    passed = _passed_columns(config, handler.features, options.reserve)
    everything = tuple(options.reserve) == (ALL_COLUMNS,)
    reader = open_reader(config, input_path, handler.columns, None if everything else passed)
    if everything:
        passed = [name for name in reader.schema.names if name not in handler.features]
    output = output.rstrip("/") or "/"
    _check_output(output, reader.paths, overwrite=options.overwrite)
    partial = f"{output}.partial"
    remove_tree(partial)
    processes = num_processes(options.processes, reader.total_rows)
    threads = setup.threads if processes == 1 else 1
    job = GenerateJob(setup, partial, tuple(passed), threads, later=options.bucketize_later)
    job.schema = job.output_schema(reader)
    try:
        rows, bad = run_shards(
            job, reader, processes=processes, batch_size=options.batch_size, what="generating"
        )
        files = _publish(partial, output)
    finally:
        remove_tree(partial)
    columns = tuple(job.schema.names)
    return Generated(sum(rows), bad, columns, tuple(files), time.monotonic() - started)


def measure(config: EasyRecConfig, input_path: str, options: Options) -> FeatureStatistics:
    """Counts what the features of a table are; errors as `generate`."""
    setup = setup_of(config)
    warm_up(logger.info)
    reader = open_reader(config, input_path, setup.handler().columns)
    processes = num_processes(options.processes, reader.total_rows)
    job = MeasureJob(setup, setup.threads if processes == 1 else 1)
    parts, bad = run_shards(
        job, reader, processes=processes, batch_size=options.batch_size, what="counting"
    )
    if bad:
        logger.warning("%d bad rows were left out", bad)
    for part in parts[1:]:
        parts[0].merge(part)
    return parts[0]


@dataclasses.dataclass
class GenerateJob:
    """The task of `generate`.

    Attributes:
        setup: feature generation.
        directory: where files are written.
        passed: columns that are passed on.
        threads: features computed at once.
        later: write values before ids.
        schema: columns of the output.
    """

    setup: FgSetup
    directory: str
    passed: tuple[str, ...]
    threads: int = 1
    later: bool = False
    schema: pa.Schema = None

    def start(self, number: int) -> Work[int]:
        """Returns the work on one file."""
        from tzrec.datasets.formats import create_writer

        return _GenerateWork(self, create_writer(self.directory, rank=number))

    def output_schema(self, reader: BaseReader) -> pa.Schema:
        """Returns the columns that come of any rows of a reader."""
        nothing = pa.RecordBatch.from_pylist([], schema=reader.schema)
        return self.table(self.setup.handler(1), nothing).schema

    def table(self, handler: Any, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Returns the output of a batch."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        found = (unbucketized if self.later else encoded)(handler, columns)
        return pa.RecordBatch.from_pydict(
            {**{name: columns[name] for name in self.passed}, **found}
        )


class _GenerateWork:
    """One output file; rows are written in large groups."""

    def __init__(self, job: GenerateJob, writer: Any) -> None:
        self._job, self._writer = job, writer
        self._handler = job.setup.handler(job.threads)
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def compute(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Returns the output of a batch."""
        return self._job.table(self._handler, batch).cast(self._job.schema)

    def keep(self, result: pa.RecordBatch) -> None:
        """Writes now and then."""
        self._waiting.append(result)
        self._rows += result.num_rows
        rows = sum(batch.num_rows for batch in self._waiting)
        if rows >= _GROUP_ROWS or sum(batch.nbytes for batch in self._waiting) >= _GROUP_BYTES:
            self._flush()

    def finish(self) -> int:
        """Closes the file and returns its rows."""
        self._flush()
        self._writer.close()
        return self._rows

    def abort(self) -> None:
        """Removes the file."""
        self._writer.abort()

    def _flush(self) -> None:
        if not self._waiting:
            return
        columns = zip(*(batch.columns for batch in self._waiting), strict=True)
        joined = [pa.concat_arrays(list(parts)) for parts in columns]
        self._writer.write(dict(zip(self._job.schema.names, joined, strict=True)))
        self._waiting = []


@dataclasses.dataclass
class MeasureJob:
    """The task of `measure`.

    Attributes:
        setup: feature generation.
        threads: features computed at once.
    """

    setup: FgSetup
    threads: int = 1

    def start(self, number: int) -> Work[FeatureStatistics]:
        """Returns the work on a part of the rows."""
        return _MeasureWork(self)


class _MeasureWork:
    """Statistics of some rows."""

    def __init__(self, job: MeasureJob) -> None:
        self._handler = job.setup.handler(job.threads)
        self._statistics = FeatureStatistics([self._handler])

    def compute(self, batch: pa.RecordBatch) -> Any:
        """Returns the features of a batch."""
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        return self._handler.process_arrow(columns)

    def keep(self, result: Any) -> None:
        """Counts them."""
        self._statistics.update(result)

    def finish(self) -> FeatureStatistics:
        """Returns the statistics."""
        return self._statistics

    def abort(self) -> None:
        """Nothing was written."""


def _passed_columns(
    config: EasyRecConfig, features: Sequence[str], reserve: Sequence[str]
) -> list[str]:
    """Returns the columns that are passed on: what training needs, and what is asked for."""
    data = config.data_config
    needed = [*data.label_fields, *data.sample_weight_fields]
    needed += [name for name in (data.event_time_field, data.sample_cost_field) if name]
    if tuple(reserve) != (ALL_COLUMNS,):
        needed += reserve
    clash = next((name for name in needed if name in features), None)
    if clash is not None:
        raise ConfigError(
            f"column {clash!r} cannot be passed on: the output has feature {clash!r} under that "
            "name",
            hint="rename the feature (feature_name), or leave the column out of --reserve",
        )
    if ALL_COLUMNS in needed:
        raise ConfigError(f"{ALL_COLUMNS} stands for all columns: name no others beside it")
    return list(dict.fromkeys(needed))


def _check_output(output: str, inputs: Sequence[str], *, overwrite: bool) -> None:
    system, inner = file_system(output)
    if system.isfile(inner):
        raise ConfigError(f"the output {output!r} is a file, must be a directory")
    if not is_directory(output):
        return
    old = [name for name in list_directory(output) if name.endswith(_SUFFIX)]
    if old and not overwrite:
        raise ConfigError(
            f"the output {output!r} holds {len(old)} Parquet file(s), for example {old[0]}",
            hint="name another directory, or say --overwrite",
        )
    for path in inputs:
        if posixpath.dirname(file_system(path)[1]) == inner.rstrip("/"):
            raise ConfigError(f"the output {output!r} holds the input {path!r}")


def _publish(partial: str, output: str) -> list[str]:
    """Moves the finished files to where they belong."""
    system, source = file_system(partial)
    _, target = file_system(output)
    system.makedirs(target, exist_ok=True)
    for name in list_directory(output):
        if name.endswith(_SUFFIX):
            system.rm_file(f"{target}/{name}")
    names = [name for name in list_directory(partial) if name.endswith(_SUFFIX)]
    numbers = sorted(int(name.removeprefix("part-").removesuffix(_SUFFIX)) for name in names)
    files = []
    for number in numbers:
        name = f"part-{number:05d}{_SUFFIX}"
        system.mv(f"{source}/part-{number}{_SUFFIX}", f"{target}/{name}")
        files.append(posixpath.join(output, name))
    return files
