"""Rows as plain Python values → Arrow columns of every layout that a reader may give."""

import pyarrow as pa

TEXT_TYPES = (
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
)
INTEGER_TYPES = (
    pa.int64(),
    pa.int32(),
    pa.int16(),
    pa.uint32(),
    pa.dictionary(pa.int8(), pa.int64()),
)
FLOAT_TYPES = (pa.float32(), pa.float64())
LISTS = (pa.list_, pa.large_list, pa.list_view)


def array(values, data_type):
    """`pa.array` that also encodes dictionaries."""
    if pa.types.is_dictionary(data_type):
        return pa.array(values, data_type.value_type).dictionary_encode()
    return pa.array(values, data_type)


def sliced(column, before, after, filler):
    """The column as a slice of a longer one."""
    if not (before or after):
        return column
    encoded = pa.types.is_dictionary(column.type)
    flat = column.dictionary_decode() if encoded else column
    edge = pa.array([filler], flat.type)
    whole = pa.concat_arrays([edge] * before + [flat] + [edge] * after)
    if encoded:
        whole = whole.dictionary_encode().cast(column.type)
    return whole.slice(before, len(column))


def chunked(column, sizes):
    """The column in chunks of these sizes and one with the rest."""
    chunks, start = [], 0
    for size in sizes:
        chunks.append(column.slice(start, size))
        start += size
    chunks.append(column.slice(min(start, len(column))))
    return pa.chunked_array(chunks, type=column.type)
