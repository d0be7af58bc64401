"""Words of 8 bytes at any place of a byte buffer, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.kernels.plain_text import Bytes, Ints

Words = NDArray[np.uint64]


def words(data: Bytes) -> Words:
    """Returns the words that start at each place of ``data`` (or at its end), zero padded."""
    buffer = np.zeros(len(data) + 8, dtype=np.uint8)
    buffer[: len(data)] = data
    return np.ndarray((len(data) + 1,), dtype="<u8", buffer=buffer, strides=(1,))


def load_part(view: Words, at: Ints, counts: Ints) -> Words:
    """Returns the first ``counts`` (0 to 8) bytes from ``at`` on, zeros above them."""
    kept = np.uint64(0xFFFFFFFFFFFFFFFF) >> ((64 - 8 * counts) & 63).astype(np.uint64)
    return np.asarray(view[at] & np.where(counts > 0, kept, np.uint64(0)))
