"""Label and sample weight columns as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pyarrow import types
from torch import Tensor

from tzrec.errors import DataError


def parse_label(name: str, column: pa.Array) -> dict[str, Tensor]:
    """Parses a label column of B rows.

    Returns:
        ``{name}`` (B,), float32 of floats and int64 of integers; for lists ``{name}.values``
        and ``{name}.lengths`` (B,).

    Raises:
        DataError: another type, or a row without a finite label.
    """
    _refuse_nulls(name, column, "label")
    if types.is_list(column.type):
        values = column.flatten()
        _refuse_nulls(name, values, "element of label")
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        return {
            f"{name}.values": _numbers(name, values, "an element of label"),
            f"{name}.lengths": torch.from_numpy(lengths.astype(np.int32)),
        }
    return {name: _numbers(name, column, "label")}


def _numbers(name: str, column: pa.Array, what: str) -> Tensor:
    if types.is_floating(column.type):
        dtype: type = np.float32
    elif types.is_integer(column.type):
        dtype = np.int64
    else:
        raise DataError(
            f"label column {name!r} is {column.type}; a label is an integer, a float, or a list "
            "of them",
            hint="for CSV, declare its type in data_config.input_fields",
        )
    numbers = column.to_numpy(zero_copy_only=False).astype(dtype)
    _refuse_non_finite(name, numbers, what)
    return torch.from_numpy(numbers)


def parse_sample_weight(name: str, column: pa.Array) -> Tensor:
    """Parses a weight column to float32 (B,).

    Raises:
        DataError: it is not floating, or a row has no finite weight.
    """
    if not types.is_floating(column.type):
        raise DataError(
            f"sample weight column {name!r} is {column.type}; a weight is float or double",
            hint="for CSV, declare it FLOAT in data_config.input_fields",
        )
    _refuse_nulls(name, column, "sample weight")
    weights = column.to_numpy(zero_copy_only=False).astype(np.float32)
    _refuse_non_finite(name, weights, "sample weight")
    return torch.from_numpy(weights)


def _refuse_nulls(name: str, column: pa.Array, what: str) -> None:
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise DataError(f"{what} {name!r} is null in row {row} of the batch")


def _refuse_non_finite(name: str, numbers: NDArray[Any], what: str) -> None:
    finite = np.isfinite(numbers)
    if not finite.all():
        value = numbers[int(np.argmin(finite))]
        raise DataError(f"{what} {name!r} is {value}, which is not finite")
