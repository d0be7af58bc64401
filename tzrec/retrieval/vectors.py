"""Tables of ids and vectors, as ``tzrec embed`` and ``tzrec predict`` write them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from tzrec.datasets.formats import create_reader
from tzrec.datasets.reader import BaseReader
from tzrec.errors import ConfigError, DataError, did_you_mean
from tzrec.retrieval.exact import Vectors
from tzrec.retrieval.ids import plain_ids
from tzrec.retrieval.origin import weights_of
from tzrec.storage import is_directory

USER_VECTORS, ITEM_VECTORS = "user_tower_emb", "item_tower_emb"
_VECTOR_NAMES = (ITEM_VECTORS, USER_VECTORS, "item_emb")


@dataclasses.dataclass(frozen=True)
class VectorTable:
    """Ids and vectors of the same rows.

    Attributes:
        ids: (R,) ``int64`` or ``string``.
        vectors: (R, D), or (R, I, D) for I interests.
        id_field: name of the id column.
        weights: `fingerprint` of the model that the vectors are of, empty where not known.
    """

    ids: pa.Array
    vectors: Vectors
    id_field: str
    weights: str = ""


def open_table(
    path: str,
    columns: Sequence[str] | None = None,
    *,
    reader_type: str | None = None,
) -> BaseReader:
    """Opens files whose columns are taken as they are.

    Args:
        path: comma list of files, globs and directories; a directory holds Parquet files,
            unless its files end in ``.csv``.
        columns: columns that must be there, None = all.
        reader_type: ``CsvReader`` or ``ParquetReader``, where the path does not tell.

    Raises:
        DataError: files or columns are missing, or there is no row.
    """
    first = path.split(",")[0].strip()
    if reader_type is None and not first.endswith((".csv", ".parquet")) and is_directory(first):
        reader_type = "CsvReader" if _holds_csv(first) else "ParquetReader"
    return create_reader(path, [], reader_type=reader_type, kept_columns=columns)


def _holds_csv(directory: str) -> bool:
    from tzrec.datasets.files import expand_paths

    try:
        return bool(expand_paths(directory, ".csv"))
    except DataError:
        return False


def read_vectors(
    path: str,
    *,
    id_field: str | None = None,
    vector_field: str | None = None,
    reader_type: str | None = None,
    batch_size: int = 65536,
) -> VectorTable:
    """Reads a whole table of ids and vectors.

    Args:
        path: comma list of files, globs and directories.
        id_field: column of ids; None = the only other column that can be one.
        vector_field: column of vectors; None = ``item_tower_emb`` and the like, or the only
            column of lists.
        reader_type: as in `open_table`.
        batch_size: rows to read at a time.

    Raises:
        DataError: the files cannot be read, or rows have vectors of different sizes.
        ConfigError: which columns are meant is not clear, or vectors are of several models.
    """
    schema = open_table(path, reader_type=reader_type).schema
    vector_field = vector_field or find_vector_field(schema, path)
    id_field = id_field or find_id_field(schema, vector_field, path)
    reader = open_table(path, [id_field, vector_field], reader_type=reader_type)
    ids, parts = [], []
    for batch in reader.to_batches(batch_size):
        ids.append(plain_ids(batch.column(id_field), f"{path}: column {id_field!r}"))
        parts.append(to_vectors(batch.column(vector_field), f"{path}: column {vector_field!r}"))
    sizes = {part.shape[1:] for part in parts}
    if len(sizes) > 1:
        raise _different_sizes(f"{path}: column {vector_field!r}", sorted(sizes))
    return VectorTable(pa.concat_arrays(ids), np.concatenate(parts), id_field, weights_of(reader))


def find_vector_field(schema: pa.Schema, where: str) -> str:
    """Returns the column of vectors.

    Raises:
        ConfigError: none, or more than one, can be it.
    """
    for name in _VECTOR_NAMES:
        if name in schema.names:
            return name
    lists = [field.name for field in schema if _is_list(field.type)]
    if len(lists) == 1:
        return lists[0]
    raise ConfigError(
        f"{where}: which column holds the vectors? it has {', '.join(schema.names)}",
        hint="name it with --vector-field",
    )


def find_id_field(schema: pa.Schema, vector_field: str, where: str) -> str:
    """Returns the column of ids: the only one of integers or text beside the vectors.

    Raises:
        ConfigError: none, or more than one, can be it.
    """
    others = [f.name for f in schema if f.name != vector_field and _is_id(f.type)]
    if len(others) == 1:
        return others[0]
    raise ConfigError(
        f"{where}: which column holds the ids? it has {', '.join(schema.names)}",
        hint="name it with --id-field",
    )


def check_column(name: str, names: Sequence[str], where: str) -> None:
    """Refuses a column that is not there.

    Raises:
        DataError: there is no such column.
    """
    if name not in names:
        raise DataError(
            f"{where} has no column {name!r}{did_you_mean(name, names)}",
            hint=f"it has {', '.join(names)}",
        )


def to_vectors(column: pa.Array, where: str) -> Vectors:
    """Returns a column as float32 (R, D), or (R, I, D) for lists of lists.

    Args:
        column: lists of numbers, lists of such lists, or text of numbers with commas (also as
            JSON).
        where: what the column is, for messages.

    Raises:
        DataError: a vector is missing, of another size than the others, or not finite.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if types.is_string(column.type) or types.is_large_string(column.type):
        column = _numbers_of_text(column, where)
    if not _is_list(column.type):
        raise DataError(f"{where} has type {column.type}, not lists of numbers")
    shape = [len(column)]
    values = column
    while _is_list(values.type):
        shape.append(_common_length(values, where))
        values = values.flatten()
    try:
        numbers = np.asarray(values.cast(pa.float32()), dtype=np.float32).reshape(shape)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise DataError(f"{where}: not lists of numbers: {error}") from error
    if len(shape) > 3:
        raise DataError(f"{where}: lists in lists in lists; a vector, or several, are expected")
    broken = ~np.isfinite(numbers).reshape(len(column), -1).all(1)
    if broken.any():
        row = int(broken.argmax())
        raise DataError(f"{where}: {int(broken.sum())} vectors are not finite, first in row {row}")
    return numbers


def _common_length(lists: pa.Array, where: str) -> int:
    if lists.null_count:
        row = int(np.asarray(pc.is_null(lists)).argmax())
        raise DataError(f"{where}: {lists.null_count} vectors are missing, the first in row {row}")
    lengths = np.unique(np.asarray(pc.list_value_length(lists)))
    if len(lengths) > 1:
        raise _different_sizes(where, [(int(n),) for n in lengths[:4]])
    return int(lengths[0]) if len(lengths) else 0


def _different_sizes(where: str, sizes: Sequence[tuple[int, ...]]) -> DataError:
    listed = ", ".join("×".join(map(str, size)) for size in sizes)
    return DataError(f"{where}: vectors are not all of one size: {listed}")


def _numbers_of_text(column: pa.Array, where: str) -> pa.Array:
    """Cuts ``0.1,0.2`` and ``[0.1, 0.2]``; ``[[…], […]]`` keeps its inner lists."""
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    if len(text) and pc.any(pc.starts_with(text, "[[")).as_py():
        return _nested(text, where)
    lists = pc.split_pattern(pc.utf8_trim(text, "[] "), ",")
    words = pc.utf8_trim_whitespace(lists.flatten())
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), words, mask=lists.is_null())


def _nested(text: pa.Array, where: str) -> pa.Array:
    import json

    try:
        return pa.array([json.loads(one) for one in text.to_pylist()])
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{where}: not lists of vectors: {error}") from error


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_id(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))
