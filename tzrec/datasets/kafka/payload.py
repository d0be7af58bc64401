"""The rows in a message: an Arrow IPC stream, or a record batch without its schema."""

from __future__ import annotations

import pyarrow as pa

from tzrec.errors import DataError

_WRITE = "write it with pyarrow.ipc.new_stream, one stream a message"


def decode(value: bytes, schema: pa.Schema | None) -> pa.RecordBatch:
    """Returns the rows of a message; all batches of a stream, in order.

    Args:
        value: the message.
        schema: ``data_config.input_fields``, of a bare record batch.

    Raises:
        DataError: it is neither, or a bare record batch and the schema is not declared.
    """
    try:
        first = pa.ipc.read_message(pa.py_buffer(value))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DataError(f"is no Arrow IPC stream: {error}", hint=_WRITE) from error
    if first.type == "record batch":
        return _bare(first, schema)
    if first.type != "schema":
        raise DataError(f"begins with an Arrow {first.type!r}, not with a schema", hint=_WRITE)
    try:
        with pa.ipc.open_stream(pa.py_buffer(value)) as stream:
            batches = list(stream)
            names = stream.schema
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DataError(f"is a damaged Arrow IPC stream: {error}", hint=_WRITE) from error
    _check_names(names)
    if len(batches) == 1:
        return batches[0]
    return pa.concat_batches(batches) if batches else pa.RecordBatch.from_pylist([], schema=names)


def _bare(message: pa.ipc.Message, schema: pa.Schema | None) -> pa.RecordBatch:
    if schema is None:
        raise DataError(
            "holds a record batch without a schema",
            hint="declare data_config.input_fields, or send Arrow IPC streams",
        )
    try:
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"holds a record batch that is not of data_config.input_fields: {error}",
            hint="declare all its columns, in its order and with its types",
        ) from error
    return batch


def _check_names(schema: pa.Schema) -> None:
    names = schema.names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"has two columns {twice!r}")
