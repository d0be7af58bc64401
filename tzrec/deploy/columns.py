"""Predictions as Arrow columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from torch import Tensor

from tzrec.constant import TARGET_REPEAT_INTERLEAVE_KEY
from tzrec.deploy.golden import to_numpy
from tzrec.errors import ConfigError, ServingError, did_you_mean


def select_outputs(
    predictions: Mapping[str, Tensor], output_columns: Sequence[str] | None
) -> list[str]:
    """Returns the names to write: those asked for, in their order, else all, sorted.

    Raises:
        ConfigError: a name that the model does not give, or given twice.
    """
    known = sorted(name for name in predictions if name != TARGET_REPEAT_INTERLEAVE_KEY)
    if not output_columns:
        return known
    for name in output_columns:
        if name not in known:
            raise ConfigError(
                f"output column {name!r}: the model gives {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
    if len(set(output_columns)) != len(output_columns):
        raise ConfigError(f"output columns name one twice: {', '.join(output_columns)}")
    return list(output_columns)


def output_columns_of(
    predictions: Mapping[str, Tensor], names: Sequence[str]
) -> dict[str, pa.Array]:
    """Returns one Arrow array a name.

    Floats become float32, integers and booleans stay. A tensor of more than one dimension
    becomes (nested) lists. With the repeats of a generative model (rows that each input row
    stands for) the rows of one input row become one list.

    Args:
        predictions: name → tensor with the rows first.
        names: which of them.

    Raises:
        ServingError: an output has no rows dimension, or the repeats do not fit it.
    """
    repeats = predictions.get(TARGET_REPEAT_INTERLEAVE_KEY)
    columns = {}
    for name in names:
        column = _to_arrow(name, to_numpy(predictions[name]))
        columns[name] = column if repeats is None else _regroup(name, column, to_numpy(repeats))
    return columns


def _to_arrow(name: str, value: np.ndarray) -> pa.Array:
    if value.ndim == 0:
        raise ServingError(
            f"output {name!r} is one number for the whole batch, not one a row",
            hint="leave it out with --output_columns",
        )
    if value.dtype.kind == "f":
        value = value.astype(np.float32, copy=False)
    column = pa.array(np.ascontiguousarray(value).reshape(-1))
    for axis in range(value.ndim - 1, 0, -1):
        column = lists_of(column, np.full(int(np.prod(value.shape[:axis])), value.shape[axis]))
    return column


def _regroup(name: str, column: pa.Array, repeats: np.ndarray) -> pa.Array:
    if int(repeats.sum()) != len(column):
        raise ServingError(
            f"output {name!r} has {len(column)} rows; {TARGET_REPEAT_INTERLEAVE_KEY} adds up to "
            f"{int(repeats.sum())}"
        )
    return lists_of(column, repeats)


def lists_of(values: pa.Array, lengths: np.ndarray) -> pa.Array:
    """Returns the values cut into lists of the given lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values)
