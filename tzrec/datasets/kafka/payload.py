"""The rows in a message: an Arrow IPC stream, or a record batch without its schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from tzrec.errors import DataError

_WRITE = "write it with pyarrow.ipc.new_stream, one stream a message"
_MOST_SCHEMAS = 64


class Payload(NamedTuple):
    """What a message holds.

    Attributes:
        batch: its rows.
        kind: the same for all messages with the same columns.
    """

    batch: pa.RecordBatch
    kind: bytes


class Decoder:
    """Decodes messages; schemas that come again are read once.

    Args:
        declared: ``data_config.input_fields``, the columns of bare record batches; None = there
            are none.
    """

    def __init__(self, declared: pa.Schema | None = None) -> None:
        self._declared = declared
        self._schemas: dict[bytes, pa.Schema] = {}

    def decode(self, value: bytes) -> Payload:
        """Returns the rows of a message; all batches of a stream, in order.

        Raises:
            DataError: it is no stream, or a bare record batch that is not as declared.
        """
        reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(value))
        try:
            first = reader.read_next_message()
            kind = b"" if first.type == "record batch" else first.metadata.to_pybytes()
        except (pa.ArrowException, OSError, EOFError, StopIteration) as error:
            text = str(error) or "it is empty"
            raise DataError(f"is no Arrow IPC stream: {text}", hint=_WRITE) from error
        if not kind:
            return Payload(_bare(first, self._declared), kind)
        if first.type != "schema":
            raise DataError(f"begins with an Arrow {first.type!r}, not with a schema", hint=_WRITE)
        try:
            schema = self._schema(kind, first)
            batches = list(_batches(reader, schema, value))
            for batch in batches:
                batch.validate(full=True)
        except (pa.ArrowException, OSError, EOFError, UnicodeError) as error:
            raise DataError(f"is a damaged Arrow IPC stream: {error}", hint=_WRITE) from error
        if len(batches) == 1:
            return Payload(batches[0], kind)
        if not batches:
            return Payload(pa.RecordBatch.from_pylist([], schema=schema), kind)
        return Payload(pa.concat_batches(batches), kind)

    def _schema(self, kind: bytes, message: pa.ipc.Message) -> pa.Schema:
        found = self._schemas.get(kind)
        if found is None:
            found = pa.ipc.read_schema(message)
            names = found.names
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f"has two columns {twice!r}")
            if len(self._schemas) >= _MOST_SCHEMAS:
                self._schemas.clear()
            self._schemas[kind] = found
        return found


def _batches(
    reader: pa.ipc.MessageReader, schema: pa.Schema, value: bytes
) -> Iterator[pa.RecordBatch]:
    for message in reader:
        if message.type != "record batch":  # dictionaries come before the batches
            with pa.ipc.open_stream(pa.py_buffer(value)) as stream:
                yield from stream
            return
        yield pa.ipc.read_record_batch(message, schema)


def _bare(message: pa.ipc.Message, schema: pa.Schema | None) -> pa.RecordBatch:
    if schema is None:
        raise DataError(
            "holds a record batch without a schema",
            hint="declare data_config.input_fields, or send Arrow IPC streams",
        )
    try:
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DataError(
            f"holds a record batch that is not of data_config.input_fields: {error}",
            hint="declare all its columns, in its order and with its types",
        ) from error
    return batch
