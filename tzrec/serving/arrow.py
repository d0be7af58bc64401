"""Bodies and answers as Arrow IPC streams, for rows in bulk.

Bytes of a client are not trusted: buffers are checked before anything reads them, and nothing
that could make a small body large is taken (compressed buffers, runs, views that overlap).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyarrow import types

from tzrec.datasets.schema import accepted_type, cast_column
from tzrec.deploy.columns import output_columns_of, select_outputs
from tzrec.errors import DataError, did_you_mean
from tzrec.fg.columns import is_list
from tzrec.serving.decode import Rows, refuse_too_many
from tzrec.serving.errors import RequestError, invalid
from tzrec.serving.json_body import shorten
from tzrec.serving.options import ServeOptions
from tzrec.serving.schema import Column
from tzrec.serving.values import is_too_long

ARROW_STREAM = "application/vnd.apache.arrow.stream"
# Kinds of messages and fields of tables in Arrow's format, Message.fbs.
_DICTIONARY, _RECORD_BATCH = 2, 3
_HEADER_TYPE, _HEADER, _BATCH_COMPRESSION, _DICTIONARY_BATCH = 1, 2, 3, 1
# Each costs time, however small it is.
_MOST_MESSAGES = 1000
_CAST_HINT = "send int32, int64, float, double, string, lists of them or map"


def read_table(body: bytes, options: ServeOptions) -> pa.Table:
    """Returns the table of a body.

    Raises:
        RequestError: 400 for what is no such stream, 413 for too many rows, 422 for a layout
            that is not taken.
    """
    if not body:
        raise RequestError(400, "empty_body", "the body is empty")
    try:
        with pa.ipc.open_stream(body) as reader:
            _check_layouts(reader.schema)
            _check_messages(body)
            batches, num_rows = [], 0
            for batch in reader:
                num_rows += batch.num_rows
                refuse_too_many(num_rows, "", options)
                batch.validate(full=True)
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError, EOFError, ValueError, struct.error, IndexError) as error:
        raise RequestError(400, "bad_arrow", f"the body is no Arrow IPC stream: {error}") from None
    return table


def _check_messages(body: bytes) -> None:
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(body))
    for number, message in enumerate(reader):
        if number > _MOST_MESSAGES:
            raise RequestError(
                413,
                "too_many_batches",
                f"the Arrow stream has more than {_MOST_MESSAGES} batches",
                hint="write larger ones",
            )
        if _is_compressed(bytes(message.metadata)):
            raise RequestError(
                415,
                "compressed",
                "the buffers of the Arrow stream are compressed",
                hint="write it with IpcWriteOptions(compression=None)",
            )


def _is_compressed(metadata: bytes) -> bool:
    """Returns whether a message of Arrow holds compressed buffers, from its flatbuffer."""
    root = struct.unpack_from("<I", metadata)[0]
    kind_at = _field(metadata, root, _HEADER_TYPE)
    header_at = _field(metadata, root, _HEADER)
    if not kind_at or not header_at:
        return False
    kind, header = metadata[kind_at], _target(metadata, header_at)
    if kind == _DICTIONARY:
        header_at = _field(metadata, header, _DICTIONARY_BATCH)
        kind, header = _RECORD_BATCH, _target(metadata, header_at)
    return kind == _RECORD_BATCH and _field(metadata, header, _BATCH_COMPRESSION) > 0


def _field(metadata: bytes, table: int, number: int) -> int:
    """Returns where a field of a flatbuffer's table lies, 0 where it is left out."""
    vtable = table - int(struct.unpack_from("<i", metadata, table)[0])
    size = struct.unpack_from("<H", metadata, vtable)[0]
    entry = 4 + 2 * number
    if entry >= size:
        return 0
    offset = int(struct.unpack_from("<H", metadata, vtable + entry)[0])
    return table + offset if offset else 0


def _target(metadata: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", metadata, place)[0])


def _check_layouts(schema: pa.Schema) -> None:
    _ = schema.names  # fails here if they are no UTF-8
    for field in schema:
        kind = field.type
        # A list that was sent once could stand in every row, and be a million times as large.
        is_plain = (
            types.is_dictionary(kind)
            and types.is_signed_integer(kind.index_type)
            and not types.is_nested(kind.value_type)
        )
        if not _is_flat(kind.value_type if is_plain else kind):
            raise invalid(
                "wrong_type",
                f"columns of type {shorten(str(kind))} are not taken",
                shorten(field.name),
                _CAST_HINT,
            )


def _is_flat(kind: pa.DataType, *, is_inner: bool = False) -> bool:
    """Returns whether values take the memory that they were sent in."""
    if types.is_map(kind):
        return _is_flat(kind.key_type) and _is_flat(kind.item_type, is_inner=True)
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_flat(kind.value_type, is_inner=True)
    if types.is_fixed_size_list(kind):
        return _is_flat(kind.value_type, is_inner=True)
    if types.is_null(kind):
        return not is_inner
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
    )


def rows_of_table(table: pa.Table, columns: Sequence[Column], options: ServeOptions) -> Rows:
    """Returns the columns of a model, typed and checked as those of JSON are.

    Raises:
        RequestError: 422 that names the column.
    """
    wanted = {column.name: column for column in columns}
    names = table.schema.names
    for i, name in enumerate(names):
        if name not in wanted:
            short = shorten(name)
            raise invalid(
                "unknown_field",
                f"the model reads no column {short!r}{did_you_mean(short, wanted)}",
                short,
                "GET /v1/schema lists the columns",
            )
        if name in names[:i]:
            raise invalid("repeated_key", f"there are two columns {name}", name)
    for name in wanted:
        if name not in names:
            raise invalid("missing_field", f"the column {name} is missing", name)
    found = dict(zip(names, table.columns, strict=True))
    arrays = {
        name: _typed(_in_one_piece(found[name]), column, options) for name, column in wanted.items()
    }

    def where(name: str, row: int | None) -> str:
        if name not in wanted:
            return ""
        return name if row is None else f"{name}[{row}]"

    return Rows(arrays, table.num_rows, where)


def _in_one_piece(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _typed(array: pa.Array, column: Column, options: ServeOptions) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    name = column.name
    if types.is_dictionary(array.type):
        array = _decoded(array, name, options)
    if array.type != column.type:
        array = _cast(array, column)
    if array.null_count and not column.nullable:
        row = int(array.is_null().to_numpy(zero_copy_only=False).argmax())
        raise invalid("null", "must not be null", f"{name}[{row}]")
    for leaf in _leaves(array):
        _check_leaf(leaf, name, options)
    return array


def _cast(array: pa.Array, column: Column) -> pa.Array:
    name, target = column.name, column.type
    found = accepted_type(array.type)
    if found is None or (target is not None and not _same_kind(found, target)):
        wanted = "" if target is None else f", must be {target}"
        raise invalid("wrong_type", f"{name}: is of type {array.type}{wanted}", name)
    try:
        return cast_column(array, target or found, name)
    except DataError as error:
        raise invalid("out_of_range", error.message, name) from None


def _decoded(array: pa.DictionaryArray, name: str, options: ServeOptions) -> pa.Array:
    """Returns the plain values; each was sent once, so that they can be many times larger."""
    values = array.dictionary
    if types.is_string(values.type) or types.is_large_string(values.type):
        sizes = pc.binary_length(values).take(array.indices)
        if (pc.sum(sizes).as_py() or 0) > options.max_body_bytes:
            raise RequestError(
                413, "body_too_large", f"the texts of {name} are too large", field=name
            )
    return array.dictionary_decode()


def _same_kind(found: pa.DataType, target: pa.DataType) -> bool:
    if types.is_null(found):
        return True
    if is_list(target):
        return is_list(found) and _same_kind(found.value_type, target.value_type)
    if types.is_map(target):
        return bool(
            types.is_map(found)
            and _same_kind(found.key_type, target.key_type)
            and _same_kind(found.item_type, target.item_type)
        )
    if types.is_floating(target):
        return bool(types.is_floating(found) or types.is_integer(found))
    if types.is_integer(target):
        return bool(types.is_integer(found))
    return bool(found == target)


def _leaves(array: pa.Array) -> Iterable[pa.Array]:
    """Yields the flat values inside lists and maps."""
    if not types.is_nested(array.type):
        yield array
    elif types.is_map(array.type):
        first, last = array.offsets[0].as_py(), array.offsets[len(array)].as_py()
        yield from _leaves(array.keys.slice(first, last - first))
        yield from _leaves(array.items.slice(first, last - first))
    else:
        yield from _leaves(array.flatten())


def _check_leaf(leaf: pa.Array, name: str, options: ServeOptions) -> None:
    if types.is_string(leaf.type) and is_too_long(leaf, options.max_text):
        longest = pc.max(pc.utf8_length(leaf)).as_py()
        raise invalid(
            "text_too_long",
            f"{name}: has a text of {longest} characters; at most {options.max_text} may",
            name,
        )
    if types.is_floating(leaf.type):
        present = leaf.drop_null() if leaf.null_count else leaf
        numbers = present.to_numpy(zero_copy_only=False)
        if not np.isfinite(numbers).all():
            raise invalid(
                "not_finite",
                f"{name}: holds NaN or infinity",
                name,
                "send null for a missing value",
            )


def answer_columns(outputs: Mapping[str, np.ndarray]) -> dict[str, pa.Array]:
    """Returns one column an output.

    Raises:
        ServingError: an output has no rows.
    """
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in outputs.items()}
    return output_columns_of(tensors, select_outputs(tensors, None))


def to_stream(columns: Mapping[str, pa.Array], version: str) -> bytes:
    """Returns columns as an Arrow IPC stream with the version in its metadata."""
    table = pa.table(dict(columns)).replace_schema_metadata({"version": version})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
