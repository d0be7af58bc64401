"""Finding keys in the maps of cells: lookup, match, kv_dot_product, overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tzrec.fg.kernels import kernels
from tzrec.fg.ragged import Ragged, Text, count_kept
from tzrec.fg.reading import as_text


def find(keys: Text, lengths: NDArray[np.int32], wanted: Ragged) -> NDArray[np.int64]:
    """Returns for each wanted value the first equal key of its cell, -1 where there is none.

    Args:
        keys: keys of all cells.
        lengths: keys per cell.
        wanted: values to find; numbers are compared as decimal text.

    Returns:
        Flat positions in ``keys``, one per value of ``wanted``.
    """
    texts = as_text(wanted.values)
    return kernels().find_keys(
        *(keys.data, keys.starts, keys.ends, lengths),
        *(texts.data, texts.starts, texts.ends, wanted.lengths),
    )


def kept(cells: Ragged, positions: NDArray[np.int64]) -> NDArray[np.int32]:
    """Returns how many positions of each cell of ``cells`` are not -1."""
    return count_kept(positions >= 0, cells.lengths)
