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
from tzrec.datasets.kafka.payload import Decoder, Payload
from tzrec.datasets.kafka.rowcode import encode, place_of
from tzrec.datasets.reader import BaseReader
from tzrec.datasets.schema import missing_columns_error
from tzrec.datasets.split import Block
from tzrec.errors import ConfigError, DataError, Unsupported

TIME_COLUMN = "__KAFKA_TIME__"
_PEEK_SECONDS = 10.0


@dataclass(frozen=True)
class Piece:
    """The rows of one message, with its own columns.

    Attributes:
        batch: n rows.
        kind: the same for all messages with the same columns.
        partition: where it came from.
        codes: `tzrec.datasets.kafka.rowcode` of its rows (n,), or its end alone if it has none.
        time_ms: its time.
    """

    batch: pa.RecordBatch | None
    kind: bytes
    partition: int
    codes: NDArray[np.int64]
    time_ms: int


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
        self._decoder = Decoder(self.declared)
        self._missing: dict[bytes, list[str]] = {}
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

    def piece_of(self, message: Message, skipped: int = 0) -> Piece:
        """Returns the rows of a message.

        A message that cannot be read is left out if it may be (`bad_rows`): it has no rows then,
        but its end.

        Args:
            message: a message.
            skipped: leading rows to leave out.

        Raises:
            DataError: it cannot be read; names partition and offset.
        """
        found = None
        if message.value is not None:  # Kafka's sign that a key was deleted
            found = self._decode(message, message.value)
        batch, kind = (None, b"") if found is None else found
        num_rows = 0 if batch is None else batch.num_rows
        codes = encode(message.offset, num_rows, skipped)
        if batch is None or num_rows <= skipped:
            return Piece(None, kind, message.partition, codes[-1:], message.time_ms)
        rest = batch.slice(skipped) if skipped else batch
        return Piece(rest, kind, message.partition, codes, message.time_ms)

    def _decode(self, message: Message, value: bytes) -> Payload | None:
        try:
            found = self._decoder.decode(value)
            missing = self._missing.get(found.kind)
            if missing is None:
                names = found.batch.schema.names
                missing = [name for name in self.schema.names if name not in names]
                self._missing[found.kind] = missing
            if missing:
                raise missing_columns_error(missing, "the message", found.batch.schema.names)
            encode(message.offset, found.batch.num_rows)
        except DataError as error:
            # What is said of a column names it first.
            what = "" if error.message.startswith("column") else "the message "
            place = f"{self.paths[message.partition]}:{message.offset}"
            named = DataError(f"{place}: {what}{error.message}", hint=error.hint)
            end = int(encode(message.offset, 0)[-1])
            self.bad_rows.add(message.partition, end, named)
            return None
        return found

    def rows_of(self, pieces: Sequence[Piece]) -> Rows:
        """Returns the rows of messages of one kind, with the types of `schema`.

        A row that cannot have them and may be left out (`bad_rows`) is all null.

        Raises:
            DataError: too many rows cannot; names partition, offset and row.
        """
        batches = [piece.batch for piece in pieces]
        raw = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
        assert raw is not None
        lengths = [len(piece.codes) for piece in pieces]
        source = np.repeat(np.array([piece.partition for piece in pieces], np.int64), lengths)
        times = np.repeat(np.array([piece.time_ms for piece in pieces], np.int64), lengths)
        code = np.concatenate([piece.codes for piece in pieces])
        try:
            typed = self._cast_all(raw)
        except DataError as error:
            typed = self._cast_good(raw, source, code, error)
        return Rows(typed.append_column(TIME_COLUMN, pa.array(times)), source, code)

    def _cast_good(
        self,
        raw: pa.RecordBatch,
        sources: NDArray[np.int64],
        codes: NDArray[np.int64],
        error: DataError,
    ) -> pa.RecordBatch:
        parts, start = [], 0
        for index, why in find_failures(raw.num_rows, lambda a, b: self._fails(raw, a, b)):
            assert isinstance(why, DataError)
            source, code = int(sources[index]), int(codes[index])
            named = DataError(f"{self.place(source, code)}: {why.message}", hint=why.hint)
            self.bad_rows.add(source, code, named)
            parts += [self._cast_all(raw.slice(start, index - start)), self._nulls(1)]
            start = index + 1
        if not parts:
            first = self.place(int(sources[0]), int(codes[0]))
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
                    return _schema_of(message.value, place), place
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


def _schema_of(value: bytes, place: str) -> pa.Schema:
    """Returns the columns of a message.

    Raises:
        DataError: it does not tell them; names the place.
    """
    try:
        return Decoder().decode(value).batch.schema
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
