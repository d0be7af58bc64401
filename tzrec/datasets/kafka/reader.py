"""`KafkaReader`: the rows of messages as Arrow record batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tzrec.config.kafka_uri import KafkaUri
from tzrec.datasets.bad_rows import BadRows, find_failures
from tzrec.datasets.kafka.client import Client, Message
from tzrec.datasets.kafka.payload import decode
from tzrec.datasets.kafka.rowcode import encode, place_of
from tzrec.datasets.reader import BaseReader
from tzrec.datasets.schema import missing_columns_error
from tzrec.datasets.split import Block
from tzrec.errors import ConfigError, DataError, Unsupported

TIME_COLUMN = "__KAFKA_TIME__"
_PEEK_SECONDS = 10.0


@dataclass(frozen=True)
class Rows:
    """Rows of messages of any partitions.

    Attributes:
        columns: B rows, with the milliseconds of their messages in `TIME_COLUMN`.
        source: partition of each row (B,).
        code: `tzrec.datasets.kafka.rowcode` of each row (B,).
    """

    columns: pa.RecordBatch
    source: NDArray[np.int64]
    code: NDArray[np.int64]


class KafkaReader(BaseReader):
    """Makes rows of messages; the messages come from a `Client`.

    Args:
        input_path: ``kafka://…``.
        columns: columns that must be there, None = all.
        kept_columns: further columns that are passed on as they are, None = all others.
        bad_rows: counts rows that cannot be read.
        fields: ``data_config.input_fields``, with all types. Without them the columns are those
            of a message that is there.

    Attributes:
        client: asks the brokers.
        declared: ``input_fields`` as a schema, None = there are none.

    Raises:
        ConfigError: the path is malformed, or a setting is not taken.
        DataError: no broker answers, there is no such topic, or a column is missing.
    """

    def __init__(  # not that of files: a stream has no number of rows
        self,
        input_path: str,
        columns: Sequence[str] | None = None,
        *,
        kept_columns: Sequence[str] | None = (),
        bad_rows: BadRows | None = None,
        fields: Mapping[str, pa.DataType | None] | None = None,
    ) -> None:
        self.uri = KafkaUri.parse(input_path)
        self.input_path = str(self.uri)
        self.bad_rows = bad_rows or BadRows()
        self.num_rows = []
        self.declared = _declared(fields or {})
        self.client = Client(self.uri)
        try:
            self.paths: list[str] = []
            self.add_partitions(self.client.num_partitions())
            found, where = self.declared, "data_config.input_fields"
            if found is None:
                found, where = self._peek()
            self.schema, self._checked = self._unify({where: found}, columns, kept_columns)
        except BaseException:
            self.client.close()
            raise

    def add_partitions(self, number: int) -> None:
        """Notes that the topic has so many partitions."""
        self.paths += [f"{self.uri.topic}:{p}" for p in range(len(self.paths), number)]
        self.sources = self.paths

    def place(self, source: int, row: int) -> str:
        """Returns words for a row of a partition."""
        offset, number = place_of(row)
        return f"{self.paths[source]}:{offset}: row {number} (counted from 0)"

    def rows_of(self, message: Message, skipped: int = 0) -> Rows:
        """Returns the rows of a message with its own columns, only those that are needed.

        A message that cannot be read is left out if it may be (`bad_rows`): it has no rows then,
        but its number.

        Args:
            message: a message.
            skipped: leading rows to leave out.

        Raises:
            DataError: it cannot be read; names partition and offset.
        """
        batch = None
        if message.value is not None:  # Kafka's sign that a key was deleted
            batch = self._decode(message)
        num_rows = 0 if batch is None else batch.num_rows
        codes = encode(message.offset, num_rows, skipped)
        sources = np.full(len(codes), message.partition, dtype=np.int64)
        if batch is None or num_rows <= skipped:
            return Rows(self._nulls(0), sources[-1:], codes[-1:])
        times = pa.array(np.full(num_rows - skipped, message.time_ms, dtype=np.int64))
        batch = batch.slice(skipped).append_column(TIME_COLUMN, times)
        return Rows(batch, sources, codes)

    def _decode(self, message: Message) -> pa.RecordBatch | None:
        assert message.value is not None
        place = f"{self.paths[message.partition]}:{message.offset}"
        try:
            batch = decode(message.value, self.declared)
            missing = [name for name in self.schema.names if name not in batch.schema.names]
            if missing:
                raise missing_columns_error(missing, "the message", batch.schema.names)
            encode(message.offset, batch.num_rows)
            return batch.select(self.schema.names)
        except DataError as error:
            named = DataError(f"{place}: the message {error.message}", hint=error.hint)
            if error.message.startswith("column"):
                named = DataError(f"{place}: {error.message}", hint=error.hint)
            end = int(encode(message.offset, 0)[-1])
            self.bad_rows.add(message.partition, end, named)
            return None

    def cast(self, rows: Rows) -> Rows:
        """Returns the rows with the types of `schema`.

        A row that cannot have them and may be left out (`bad_rows`) is all null.

        Raises:
            DataError: too many rows cannot; names partition, offset and row.
        """
        times = rows.columns.column(TIME_COLUMN)
        raw = rows.columns.select(self.schema.names)
        try:
            typed = self._cast_all(raw)
        except DataError as error:
            typed = self._cast_good(raw, rows, error)
        return Rows(typed.append_column(TIME_COLUMN, times), rows.source, rows.code)

    def _cast_good(self, raw: pa.RecordBatch, rows: Rows, error: DataError) -> pa.RecordBatch:
        parts, start = [], 0
        for index, why in find_failures(raw.num_rows, lambda a, b: self._fails(raw, a, b)):
            assert isinstance(why, DataError)
            source, code = int(rows.source[index]), int(rows.code[index])
            named = DataError(f"{self.place(source, code)}: {why.message}", hint=why.hint)
            self.bad_rows.add(source, code, named)
            parts += [self._cast_all(raw.slice(start, index - start)), self._nulls(1)]
            start = index + 1
        if not parts:
            first = self.place(int(rows.source[0]), int(rows.code[0]))
            raise DataError(f"{first}: {error.message}", hint=error.hint) from error
        return pa.concat_batches([*parts, self._cast_all(raw.slice(start))])

    def _peek(self) -> tuple[pa.Schema, str]:
        """Returns the columns of the newest message of the first partition that has one."""
        for partition in range(len(self.paths)):
            low, high = self.client.bounds(partition)
            for offset in range(high - 1, max(low, high - 8) - 1, -1):
                message = self._message_at(partition, offset)
                if message is not None and message.value is not None:
                    place = f"{self.paths[partition]}:{offset}"
                    return decode_schema(message.value, place), place
        raise ConfigError(
            f"{self.uri} has no message yet that would tell the columns",
            hint="declare them in data_config.input_fields or input_fields_str",
        )

    def _message_at(self, partition: int, offset: int) -> Message | None:
        self.client.assign({partition: offset})
        try:
            for message in self.client.take(1, _PEEK_SECONDS):
                if not message.error and message.offset == offset:
                    return message
        finally:
            self.client.release()
        return None

    def _inspect(self, path: str) -> Any:
        raise _no_rows()

    def blocks(self) -> list[Block]:
        """A stream has none."""
        raise _no_rows()

    def _read_from(self, source: int, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        raise _no_rows()


def decode_schema(value: bytes, place: str) -> pa.Schema:
    """Returns the columns of a message.

    Raises:
        DataError: it does not tell them; names the place.
    """
    try:
        return decode(value, None).schema
    except DataError as error:
        raise DataError(f"{place}: the message {error.message}", hint=error.hint) from error


def _declared(fields: Mapping[str, pa.DataType | None]) -> pa.Schema | None:
    if not fields:
        return None
    untyped = [name for name, kind in fields.items() if kind is None]
    if untyped:
        raise ConfigError(
            f"data_config.input_fields: column {untyped[0]!r} has no input_type",
            hint="a message does not tell it; write input_type, or leave input_fields out",
        )
    return pa.schema(list(fields.items()))


def _no_rows() -> Unsupported:
    return Unsupported(
        "a kafka:// stream cannot be read by row number",
        hint="this command reads files: write the messages to Parquet first",
    )
