"""Cartesian products of the tokens of a cell, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.kernels.plain_hashing import bucket_text
from tzrec.fg.kernels.plain_text import Bytes, Ints, Lengths, concat, ranges

Part = tuple[Bytes, Ints, Ints, Lengths]

JOINER = 95  # "_" stands between the parts of a cross


def product_lengths(left: Lengths, right: Lengths) -> Lengths:
    """Returns the number of products of each cell.

    Raises:
        OverflowError: a cell has more than 2^31 - 1 products.
    """
    lengths = left.astype(np.int64) * right
    if len(lengths) and int(lengths.max()) > np.iinfo(np.int32).max:
        raise OverflowError("a cell of a cross has more than 2^31 - 1 combinations")
    return lengths.astype(np.int32)


def bucket_cross(
    parts: tuple[Part, ...], buckets: int, farm: bool
) -> tuple[NDArray[np.int64], Lengths]:
    """Returns the buckets of each cell's products, first part slowest, and their number."""
    data, starts, ends, lengths = cross_text(parts, JOINER)
    return bucket_text(data, starts, ends, buckets, farm), lengths


def cross_text(parts: tuple[Part, ...], joiner: int) -> Part:
    """Returns each cell's products as text, first part slowest, joined by one byte."""
    product = parts[0]
    for part in parts[1:]:
        product = _join_two(product, part, joiner)
    return product


def _join_two(left: Part, right: Part, joiner: int) -> Part:
    lengths = product_lengths(left[3], right[3])
    within = ranges(np.zeros(len(lengths), dtype=np.int64), lengths)
    inner = np.repeat(right[3], lengths)
    first = np.cumsum(left[3], dtype=np.int64) - left[3]
    second = np.cumsum(right[3], dtype=np.int64) - right[3]
    a = np.repeat(first, lengths) + within // np.maximum(inner, 1)
    b = np.repeat(second, lengths) + within % np.maximum(inner, 1)
    pieces = ((left[0], left[1][a], left[2][a]), (right[0], right[1][b], right[2][b]))
    data, starts, ends = concat(pieces, np.array([joiner], dtype=np.uint8))
    return data, starts, ends, lengths
