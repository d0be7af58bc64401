"""FG_NONE: columns that already hold ids and numbers are only taken apart (reference 02 §2.6.1).

One column per feature. The only default is ``fg_encoded_default_value``; without it a missing
sparse value is an empty row, and a missing dense value an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.errors import FeatureError
from tzrec.fg import columns
from tzrec.fg.columns import Int32Array, Place
from tzrec.fg.kernels.plain_segments import fill_empty_numbers
from tzrec.fg.parsed import DenseData, SequenceDenseData, SequenceSparseData, SparseData

MULTIVAL_SEP = chr(3)
_WEIGHT_SEP = ":"
_IDS = "integers, text, or a list of these"
_NUMBERS = "numbers, text, or a list of these"


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
        feat: (B,) integers, text (``1␃2``), a list of these; if weighted, text ``id:weight``, a
            list of it, or a map id → weight.
        multival_sep: separator of several ids in text.
        default_value: ids of a row without any, with weight 1; None leaves it empty.
        is_weighted: each id has a weight.

    Returns:
        Ids and their number per row, and weights of a weighted feature.

    Raises:
        FeatureError: the column's type or a value does not fit.
    """
    feat = columns.plain(feat)
    weights: NDArray[np.float32] | None = None
    if is_weighted:
        tokens, texts, lengths = _weighted_tokens(name, feat, multival_sep)
        weights = columns.to_float32(texts, Place(name, (lengths,)))
    else:
        tokens, lengths = _tokens(name, feat, multival_sep, pa.types.is_integer, _IDS)
    values = columns.to_int64(tokens, Place(name, (lengths,)))
    if default_value is not None and len(default_value):
        default = np.asarray(default_value, dtype=np.int64)
        if weights is not None:
            weights, _ = fill_empty_numbers(weights, lengths, np.ones(len(default), np.float32))
        values, lengths = fill_empty_numbers(values, lengths, default)
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
        feat: (B,) numbers, text (``0.1␃0.2``) or a list of these.
        multival_sep: separator of several numbers in text.
        default_value: numbers of a null or empty row; None makes such a row an error.
        value_dim: numbers of each row; None takes it from the default or the first row.

    Returns:
        (B, value_dim) float32.

    Raises:
        FeatureError: the column's type or a value does not fit, rows differ in length, or a row
            is missing and there is no default.
    """
    values = _vectors(name, columns.plain(feat), multival_sep, default_value, value_dim)
    return DenseData(name, values)


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
        feat: (B,) text (``1;2␃3``), a list of integers or text, a list of lists of these, or
            integers (sequences of one step).
        sequence_delim: separator of steps in text.
        multival_sep: separator of several ids of one step in text.
        default_value: ids of a step without any, and of the one step that an empty row gets;
            None leaves steps and rows empty.

    Returns:
        Ids, ids per step, steps per row.

    Raises:
        FeatureError: the column's type or a value does not fit.
    """
    steps, lengths = _steps(name, feat, sequence_delim)
    tokens, key_lengths = _tokens(name, steps, multival_sep, pa.types.is_integer, _IDS)
    values = columns.to_int64(tokens, Place(name, (key_lengths, lengths)))
    if default_value is not None and len(default_value):
        # An empty row becomes one empty step, and an empty step the default.
        key_lengths, lengths = fill_empty_numbers(key_lengths, lengths, np.zeros(1, np.int32))
        default = np.asarray(default_value, dtype=np.int64)
        values, key_lengths = fill_empty_numbers(values, key_lengths, default)
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
        feat: (B,) text (``0.1␃0.2;0.3␃0.4``), a list of numbers or text, a list of lists of
            these, or numbers (sequences of one step).
        sequence_delim: separator of steps in text.
        multival_sep: separator of several numbers of one step in text.
        default_value: numbers of an empty step, and of the one step that an empty row gets; None
            leaves the row empty and makes an empty step an error.
        value_dim: numbers per step.

    Returns:
        (steps, value_dim) float32 and steps per row.

    Raises:
        FeatureError: the column's type or a value does not fit, or a step has not value_dim
            numbers.
    """
    steps, lengths = _steps(name, feat, sequence_delim)
    values = _vectors(name, steps, multival_sep, default_value, value_dim, row_lengths=(lengths,))
    if default_value is not None and len(default_value):
        default = np.asarray(default_value, dtype=np.float32).reshape(1, -1)
        values, lengths = fill_empty_numbers(values, lengths, default)
    return SequenceDenseData(name, values, lengths)


def _tokens(
    name: str,
    feat: pa.Array,
    separator: str,
    fits: Callable[[pa.DataType], bool],
    takes: str,
) -> tuple[pa.Array, Int32Array]:
    """Returns the flat values of a column, text or what fits, and their number per row."""
    if columns.is_text(feat.type):
        return columns.split(feat, separator)
    if pa.types.is_null(feat.type):
        return pa.array([], pa.string()), np.zeros(len(feat), dtype=np.int32)
    if fits(feat.type):
        return columns.scalars(feat)
    if columns.is_list(feat.type):
        flat, lengths = columns.unlist(feat)
        if columns.is_text(flat.type) or fits(flat.type) or pa.types.is_null(flat.type):
            return flat, lengths
    raise _wrong_type(name, feat, takes)


def _wrong_type(name: str, feat: pa.Array, takes: str) -> FeatureError:
    if pa.types.is_map(feat.type):
        hint = "weighted: true reads a map id → weight"
    else:
        hint = "cast the column where the file is written"
    return FeatureError(
        f"feature {name!r} cannot read a column of {feat.type}; it takes {takes}", hint=hint
    )


def _weighted_tokens(
    name: str, feat: pa.Array, separator: str
) -> tuple[pa.Array, pa.Array, Int32Array]:
    """Returns ids and weights, one each per token, and the tokens per row."""
    if pa.types.is_map(feat.type):
        return columns.unmap(feat)
    takes = "text 'id:weight', a list of it, or a map id → weight"
    tokens, lengths = _tokens(name, feat, separator, columns.is_text, takes)
    if pa.types.is_null(tokens.type):
        return tokens, tokens, lengths
    parts = pc.split_pattern(tokens, _WEIGHT_SEP)
    counts = pc.fill_null(pc.list_value_length(parts), 2).to_numpy(zero_copy_only=False)
    if (counts != 2).any():
        bad = int(np.argmax(counts != 2))
        place = Place(name, (lengths,))
        raise place.error(bad, f"holds {tokens[bad].as_py()!r}, which is not 'id:weight'")
    return pc.list_element(parts, 0), pc.list_element(parts, 1), lengths


def _steps(name: str, feat: pa.Array, sequence_delim: str) -> tuple[pa.Array, Int32Array]:
    """Returns the steps of all rows, each still to be taken apart, and their number per row."""
    feat = columns.plain(feat)
    if columns.is_text(feat.type):
        return columns.split(feat, sequence_delim)
    if columns.is_list(feat.type):
        return columns.unlist(feat)
    if pa.types.is_null(feat.type):
        return pa.array([], pa.string()), np.zeros(len(feat), dtype=np.int32)
    if columns.is_number(feat.type):
        return columns.scalars(feat)
    raise _wrong_type(name, feat, "text, a list, or a list of lists")


def _vectors(
    name: str,
    feat: pa.Array,
    separator: str,
    default_value: Sequence[float] | None,
    value_dim: int | None,
    *,
    row_lengths: tuple[Int32Array, ...] = (),
) -> NDArray[np.float32]:
    """Returns (n, value_dim) numbers, n = entries of ``feat``.

    Args:
        name: feature.
        feat: rows, or steps of rows.
        separator: separator of several numbers in text.
        default_value: numbers of a missing entry.
        value_dim: numbers of an entry, None where the data decides.
        row_lengths: steps per row; empty where entries are rows.
    """
    default = None
    if default_value is not None and len(default_value):
        default = np.asarray(default_value, dtype=np.float32)
        if value_dim not in (None, len(default)):
            raise FeatureError(
                f"feature {name!r}: the default has {len(default)} numbers, but value_dim is "
                f"{value_dim}"
            )
        value_dim = len(default)
    flat, lengths = _tokens(name, feat, separator, columns.is_number, _NUMBERS)
    values = columns.to_float32(flat, Place(name, (lengths, *row_lengths)))
    if default is not None:
        values, lengths = fill_empty_numbers(values, lengths, default)
    if value_dim is None:
        value_dim = int(lengths[0]) if len(lengths) and lengths[0] else 1
    if len(values) != value_dim * len(lengths) or not (lengths == value_dim).all():
        wrong = int(np.argmax(lengths != value_dim))
        raise _wrong_count(Place(name, row_lengths), wrong, int(lengths[wrong]), value_dim)
    return values.reshape(-1, value_dim)


def _wrong_count(place: Place, entry: int, count: int, value_dim: int) -> FeatureError:
    of = "has a step that" if place.nesting else ""
    if count == 0:
        return place.error(
            entry,
            f"{of} is null or empty, and there is no default".strip(),
            "set fg_encoded_default_value to the numbers that stand for a missing value",
        )
    return place.error(
        entry,
        f"{of} has {count} numbers, but value_dim is {value_dim}".strip(),
        "every row (step of a sequence) needs exactly value_dim numbers",
    )
