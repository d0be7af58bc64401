"""FG_NONE: columns that already hold ids and numbers are only taken apart.

One column per feature. The only default is ``fg_encoded_default_value``; without it a missing
sparse value is an empty row, and a missing dense value an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tzrec.errors import FeatureError
from tzrec.fg import columns
from tzrec.fg.parsed import DenseData, SequenceDenseData, SequenceSparseData, SparseData

MULTIVAL_SEP = chr(3)
_WEIGHT_SEP = ":"
_SPARSE_TYPES = "text, integers, a list of these, or a map id → weight"
_DENSE_TYPES = "numbers, text, or a list of these"


def parse_fg_encoded_sparse_feature_impl(
    name: str,
    feat: pa.Array,
    multival_sep: str = MULTIVAL_SEP,
    default_value: Sequence[int] | None = None,
    is_weighted: bool | None = False,
) -> SparseData:
    """Takes a column of ids apart.

    Args:
        name: feature.
        feat: (B,) text (``1␃2``), integers, list of these, or map id → weight.
        multival_sep: separator of several ids in text.
        default_value: ids of a row without any; None leaves it empty.
        is_weighted: text tokens are ``id:weight``.

    Returns:
        Ids and their number per row, and weights of a weighted feature.

    Raises:
        FeatureError: the column's type or a value does not fit.
    """
    feat = columns.plain(feat)
    weights: np.ndarray | None = None
    if pa.types.is_map(feat.type):
        values, lengths, weights = _from_map(name, feat)
        weights = weights if is_weighted else None
    else:
        flat, lengths = _tokens(name, feat, multival_sep)
        if is_weighted:
            flat, weights = _split_weights(name, flat)
        values = columns.to_int64(flat, name)
    if default_value is not None and len(default_value):
        empty_row = np.asarray(default_value, dtype=np.int64)
        if weights is not None:
            ones = np.ones(len(empty_row), dtype=np.float32)
            weights = columns.fill_rows(weights, lengths, ones)[0]
        values, lengths = columns.fill_rows(values, lengths, empty_row)
    return SparseData(name, values, lengths, weights=weights)


def parse_fg_encoded_dense_feature_impl(
    name: str,
    feat: pa.Array,
    multival_sep: str = MULTIVAL_SEP,
    default_value: Sequence[float] | None = None,
    value_dim: int | None = None,
) -> DenseData:
    """Takes a column of numbers apart.

    Args:
        name: feature.
        feat: (B,) numbers, text (``0.1␃0.2``) or list of these.
        multival_sep: separator of several numbers in text.
        default_value: numbers of a null or empty row; None makes such a row an error.
        value_dim: numbers of each row; None takes it from the data.

    Returns:
        (B, value_dim) float32.

    Raises:
        FeatureError: the column's type or a value does not fit, rows differ in length, or a row
            is missing and there is no default.
    """
    feat = columns.plain(feat)
    if columns.is_number(feat.type):
        return DenseData(name, _scalars(name, feat, default_value, value_dim))
    flat, lengths = _tokens(name, feat, multival_sep, types=_DENSE_TYPES)
    values = columns.to_float32(flat, name)
    if default_value is not None and len(default_value):
        empty_row = np.asarray(default_value, dtype=np.float32)
        values, lengths = columns.fill_rows(values, lengths, empty_row)
    dim = value_dim or (int(lengths[0]) if len(lengths) else 1)
    wrong = lengths != dim
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        if lengths[row] == 0:
            raise _missing(name, row)
        raise FeatureError(
            f"feature {name!r}: row {row} of the batch has {lengths[row]} numbers instead of {dim}",
            hint="value_dim is the number of values in every row",
        )
    return DenseData(name, values.reshape(-1, dim))


def parse_fg_encoded_sequence_sparse_feature_impl(
    name: str,
    feat: pa.Array,
    sequence_delim: str = ";",
    multival_sep: str = MULTIVAL_SEP,
    default_value: Sequence[int] | None = None,
) -> SequenceSparseData:
    """Takes a column of sequences of ids apart.

    Args:
        name: feature.
        feat: (B,) text (``1;2␃3``), list of integers, or list of lists of integers.
        sequence_delim: separator of steps in text.
        multival_sep: separator of several ids of one step in text.
        default_value: ids of the one step of an empty row; None leaves the row empty.

    Returns:
        Ids, ids per step, steps per row.

    Raises:
        FeatureError: the column's type or a value does not fit.
    """
    steps, lengths = _steps(name, feat, sequence_delim)
    flat, key_lengths = _tokens(name, steps, multival_sep)
    values = columns.to_int64(flat, name)
    if default_value is not None and len(default_value):
        # An empty row becomes one empty step, and an empty step the default.
        no_ids = np.zeros(1, dtype=np.int32)
        key_lengths, lengths = columns.fill_rows(key_lengths, lengths, no_ids)
        default = np.asarray(default_value, dtype=np.int64)
        values, key_lengths = columns.fill_rows(values, key_lengths, default)
    return SequenceSparseData(name, values, lengths, key_lengths=key_lengths)


def parse_fg_encoded_sequence_dense_feature_impl(
    name: str,
    feat: pa.Array,
    sequence_delim: str = ";",
    multival_sep: str = MULTIVAL_SEP,
    default_value: Sequence[float] | None = None,
    value_dim: int = 1,
) -> SequenceDenseData:
    """Takes a column of sequences of numbers apart.

    Args:
        name: feature.
        feat: (B,) text (``0.1␃0.2;0.3␃0.4``), list of numbers, or list of lists of numbers.
        sequence_delim: separator of steps in text.
        multival_sep: separator of several numbers of one step in text.
        default_value: numbers of the one step of an empty row; None leaves the row empty.
        value_dim: numbers per step.

    Returns:
        (steps, value_dim) float32 and steps per row.

    Raises:
        FeatureError: the column's type or a value does not fit.
    """
    steps, lengths = _steps(name, feat, sequence_delim)
    default = None
    if default_value is not None and len(default_value):
        default = np.asarray(default_value, dtype=np.float32).reshape(1, -1)
        _check_default_dim(name, default, value_dim)
    values = parse_fg_encoded_dense_feature_impl(
        name, steps, multival_sep, None if default is None else default[0], value_dim=value_dim
    ).values
    if default is not None:
        values, lengths = columns.fill_rows(values, lengths, default)
    return SequenceDenseData(name, values, lengths)


def _tokens(
    name: str, feat: pa.Array, separator: str, types: str = _SPARSE_TYPES
) -> tuple[pa.Array, np.ndarray]:
    """Returns the flat values of a column and their number per row."""
    if columns.is_text(feat.type):
        return columns.split(feat, separator)
    if columns.is_list(feat.type):
        flat, lengths = columns.unlist(feat)
        if columns.is_text(flat.type) or columns.is_number(flat.type):
            return flat, lengths
    elif pa.types.is_integer(feat.type) or (types == _DENSE_TYPES and columns.is_number(feat.type)):
        if not feat.null_count:
            return feat, np.ones(len(feat), dtype=np.int32)
        valid = pc.is_valid(feat).to_numpy(zero_copy_only=False)
        return feat.drop_null(), valid.astype(np.int32)
    elif pa.types.is_null(feat.type):
        return pa.array([], pa.int64()), np.zeros(len(feat), dtype=np.int32)
    raise FeatureError(
        f"feature {name!r} reads a column of {feat.type}; it takes {types}",
        hint="cast the column when the file is written",
    )


def _steps(name: str, feat: pa.Array, sequence_delim: str) -> tuple[pa.Array, np.ndarray]:
    feat = columns.plain(feat)
    if columns.is_text(feat.type):
        return columns.split(feat, sequence_delim)
    if columns.is_list(feat.type):
        return columns.unlist(feat)
    if pa.types.is_null(feat.type):
        return pa.array([], pa.int64()), np.zeros(len(feat), dtype=np.int32)
    raise FeatureError(
        f"sequence feature {name!r} reads a column of {feat.type}; it takes text, a list, or a "
        "list of lists",
        hint="cast the column when the file is written",
    )


def _from_map(name: str, feat: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    offsets = feat.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.diff(offsets).astype(np.int32)
    keys = feat.keys.slice(offsets[0], offsets[-1] - offsets[0])
    items = feat.items.slice(offsets[0], offsets[-1] - offsets[0])
    if feat.null_count:
        valid = feat.is_valid().to_numpy(zero_copy_only=False)
        kept = pa.array(np.repeat(valid, lengths))
        keys, items = keys.filter(kept), items.filter(kept)
        lengths = np.where(valid, lengths, 0).astype(np.int32)
    keys, items = columns.plain(keys), columns.plain(items)
    return columns.to_int64(keys, name), lengths, columns.to_float32(items, name)


def _split_weights(name: str, tokens: pa.Array) -> tuple[pa.Array, np.ndarray]:
    if not columns.is_text(tokens.type):
        raise FeatureError(
            f"weighted feature {name!r} reads {tokens.type}; it takes 'id:weight' tokens or a "
            "map id → weight"
        )
    parts = pc.split_pattern(tokens, _WEIGHT_SEP)
    count = pc.list_value_length(parts).to_numpy(zero_copy_only=False)
    if (count != 2).any():
        bad = tokens[int(np.flatnonzero(count != 2)[0])].as_py()
        raise FeatureError(f"weighted feature {name!r}: {bad!r} is not 'id:weight'")
    return pc.list_element(parts, 0), columns.to_float32(pc.list_element(parts, 1), name)


def _scalars(
    name: str, feat: pa.Array, default: Sequence[float] | None, value_dim: int | None
) -> np.ndarray:
    if value_dim not in (None, 1) and len(feat):
        raise FeatureError(
            f"feature {name!r} has value_dim {value_dim} and reads a column of single numbers"
        )
    if feat.null_count:
        if default is None or not len(default):
            raise _missing(name, pc.index(pc.is_null(feat), True).as_py())
        feat = pc.fill_null(feat.cast(pa.float32(), safe=False), float(default[0]))
    if pa.types.is_boolean(feat.type):
        feat = feat.cast(pa.uint8())
    return columns.to_float32(feat, name).reshape(-1, 1)


def _missing(name: str, row: int) -> FeatureError:
    return FeatureError(
        f"feature {name!r}: row {row} of the batch is null or empty, and there is no default",
        hint="set fg_encoded_default_value",
    )


def _check_default_dim(name: str, default: np.ndarray, value_dim: int) -> None:
    if default.shape[1] != value_dim:
        raise FeatureError(
            f"feature {name!r}: fg_encoded_default_value has {default.shape[1]} numbers, "
            f"value_dim is {value_dim}"
        )
