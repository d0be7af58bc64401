"""Kernels between square matrices and what stands above their diagonals.

Arrays: square (B, F, F) float32; above (B, F (F - 1) / 2) float32, the places (0, 1), (0, 2), ...,
(F - 2, F - 1) of each; everything C-contiguous. Matrices ``first`` to ``last`` are worked on.
"""

from typing import Any

import numpy as np

from tzrec.ops.cpu.jit import kernel


@kernel
def take_above(square: Any, above: Any, first: Any, last: Any) -> None:
    """Writes what stands above the diagonals to ``above``."""
    size = square.shape[1]
    for row in range(first, last):
        at = 0
        for i in range(size - 1):
            count = size - 1 - i
            # Views: indices that might be negative would stop vectorisation.
            source, target = square[row, i, i + 1 :], above[row, at : at + count]
            for j in range(count):
                target[j] = source[j]
            at += count


@kernel
def mirror(above: Any, square: Any, first: Any, last: Any) -> None:
    """Writes symmetric matrices with a diagonal of 0 to ``square``."""
    size = square.shape[1]
    for row in range(first, last):
        at = 0
        for i in range(size):
            count = size - 1 - i
            source, target = above[row, at : at + count], square[row, i, i + 1 :]
            column = square[row, i + 1 :, i]
            square[row, i, i] = np.float32(0)
            for j in range(count):
                target[j] = source[j]
                column[j] = source[j]
            at += count
