"""Readers and writers by format; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tzrec.config.kafka_uri import is_kafka
from tzrec.datasets.reader import BaseReader
from tzrec.datasets.writer import BaseWriter
from tzrec.errors import ConfigError, Unsupported
from tzrec.registry import Registry

_CSV, _PARQUET = "tzrec.datasets.csv_files", "tzrec.datasets.parquet_files"
_READERS: Registry[Any] = Registry(
    "reader",
    {
        "CsvReader": _CSV,
        "KafkaReader": "tzrec.datasets.kafka.reader",
        "ParquetReader": _PARQUET,
    },
)
_WRITERS: Registry[Any] = Registry("writer_type", {"CsvWriter": _CSV, "ParquetWriter": _PARQUET})
_BY_SUFFIX = {".csv": "Csv", ".parquet": "Parquet"}
_LATER = ("Odps", "OdpsV1")


def format_of(input_path: str, explicit: str) -> str:
    """Returns ``Csv``, ``Parquet`` or ``Kafka``: by the path if it tells, else as said."""
    if is_kafka(input_path):
        return "Kafka"
    if input_path.strip().startswith("odps://"):
        raise Unsupported(f"odps:// input is not supported yet: {input_path}")
    first = input_path.split(",")[0].strip()
    for suffix, name in _BY_SUFFIX.items():
        if first.endswith(suffix):
            return name
    if explicit in _LATER:
        raise Unsupported(f"{explicit} input and output is not supported yet")
    if explicit == "Kafka":
        raise ConfigError(
            f"{input_path!r} is no topic", hint="a topic is kafka://broker/topic?group.id=NAME"
        )
    return explicit


def create_reader(
    input_path: str,
    columns: Sequence[str] | None = None,
    *,
    reader_type: str | None = None,
    **options: Any,
) -> BaseReader:
    """Opens files for reading.

    Args:
        input_path: comma list of files, globs and directories.
        columns: columns to read, None = all.
        reader_type: ``CsvReader`` or ``ParquetReader``, where the path does not tell.
        options: further arguments of the reader class, such as ``csv_format``.

    Raises:
        DataError: files or columns are missing, or of a type that cannot be read.
        ConfigError: unknown reader, or neither path nor type tell the format.
    """
    found = format_of(input_path, (reader_type or "").removesuffix("Reader"))
    if not found:
        raise ConfigError(
            f"the format of {input_path!r} is not clear from its name",
            hint="name files *.csv or *.parquet, or say --dataset_type",
        )
    reader: BaseReader = _READERS.get(f"{found}Reader")(input_path, columns, **options)
    return reader


def create_writer(output_path: str, writer_type: str | None = None, *, rank: int = 0) -> BaseWriter:
    """Opens ``part-{rank}.csv`` or ``.parquet`` in a directory for writing.

    Args:
        output_path: directory.
        writer_type: ``CsvWriter`` or ``ParquetWriter`` (default).
        rank: number of this process.

    Raises:
        ConfigError: unknown writer.
        Unsupported: a writer that comes with a later version.
    """
    name = writer_type or "ParquetWriter"
    if name.removesuffix("Writer") in (*_LATER, "Kafka"):
        raise Unsupported(f"{name} is not supported yet", hint="use CsvWriter or ParquetWriter")
    writer: BaseWriter = _WRITERS.get(name)(output_path, rank=rank)
    return writer
