"""Rows of an embedding table as 8-bit codes with a scale and an offset of their own.

A row is ``scale`` and ``offset``, two little-endian float16, then one byte per column; a value is
``code * scale + offset``. This is how exports with ``QUANT_EMB=INT8`` store a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.errors import CheckpointError

HEADER = 4  # bytes
_LEVELS = 255


def quantise(rows: Any) -> Any:
    """Returns rows as bytes.

    With s the row's scale and o its offset as stored, a value x of the row comes back within
    ``s / 2 + |255 s - (max - min)| + |o - min|``: half a step, and what float16 rounds off the
    scale and off the smallest value.

    Args:
        rows: (n, D) float32.

    Returns:
        (n, 4 + D) uint8.

    Raises:
        CheckpointError: a value is not finite, or too large for float16.
    """
    low, high = rows.min(axis=1), rows.max(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        offset = low.astype("<f2")
        scale = ((high - low) / np.float32(_LEVELS)).astype("<f2")
    if not (np.isfinite(offset).all() and np.isfinite(scale).all() and np.isfinite(rows).all()):
        raise CheckpointError(
            "an embedding row has a value that is not finite or above 65,504, which a float16 "
            "offset cannot hold",
            hint="write delta_embedding_dump_config { quant_type: DELTA_EMBEDDING_QUANT_NONE }",
        )
    step = scale.astype(np.float32)[:, None]
    codes = (rows - offset.astype(np.float32)[:, None]) / np.where(step == 0, np.float32(1), step)
    packed = np.empty((len(rows), HEADER + rows.shape[1]), np.uint8)
    packed[:, :2] = scale.view(np.uint8).reshape(-1, 2)
    packed[:, 2:HEADER] = offset.view(np.uint8).reshape(-1, 2)
    packed[:, HEADER:] = np.rint(codes).clip(0, _LEVELS)
    return packed


def dequantise(column: pa.Array | pa.ChunkedArray) -> Any:
    """Returns the column ``embedding`` of an INT8 dump as (n, D) float32.

    Args:
        column: binary values of one length, the rows of tables of one dimension.
    """
    values = column.to_pylist()
    packed = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)
    header = np.ascontiguousarray(packed[:, :HEADER]).view("<f2").astype(np.float32)
    return packed[:, HEADER:] * header[:, :1] + header[:, 1:]
