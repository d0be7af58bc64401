"""The compiled draw of tree nodes. Import it inside the function that runs it: it loads numba.

Random numbers as in `tzrec.datasets.samplers.kernels`.
"""

# No `from __future__ import annotations`: numba's typing decorators look at real objects.

from typing import Any

import numpy as np
from numba import types

from tzrec.fg.kernels.compiled_base import (
    FLOATS,
    INTS,
    LENGTHS,
    OUT_LENGTHS,
    WORDS,
    helper,
    high_product,
    kernel,
)

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@helper
def _next(state: Any) -> Any:
    state[0] += _STEP
    word = state[0]
    word = (word ^ (word >> np.uint64(30))) * _MIX1
    word = (word ^ (word >> np.uint64(27))) * _MIX2
    return word ^ (word >> np.uint64(31))


@helper
def _race(weights: Any, size: Any, skipped: Any, taken: Any, filled: Any, state: Any) -> None:
    """Fills ``taken`` up with places below ``size`` that are not in it and not ``skipped``.

    Each place gets an exponential time with its weight as rate; the earliest ones come first, which
    is drawing one after the other without replacement (Efraimidis & Spirakis, 2006).
    """
    times = np.empty(size, np.float64)
    for place in range(size):
        uniform = float((_next(state) >> np.uint64(11)) + np.uint64(1)) / 9007199254740992.0
        weight = weights[place] if len(weights) > 0 else 1.0
        times[place] = -np.log(uniform) / weight if weight > 0.0 else np.inf
    times[skipped] = np.inf
    for k in range(filled):
        times[taken[k]] = np.inf
    order = np.argsort(times)
    for k in range(filled, len(taken)):
        taken[k] = order[k - filled]


@helper
def _draw(cells: Any, weights: Any, size: Any, skipped: Any, taken: Any, state: Any) -> None:
    """Fills ``taken`` with different places below ``size`` by weight, none of them ``skipped``."""
    wanted, filled = len(taken), 0
    # Most draws repeat one another where nearly all places are wanted.
    tries = 8 * wanted + 32 if 2 * wanted < size else 0
    while filled < wanted and tries > 0:
        tries -= 1
        word = _next(state)
        place = np.int64(high_product(word, np.uint64(size)))
        if len(cells) > 0:
            cell = cells[place]
            if ((word * np.uint64(size)) >> _HALF) >= (cell >> _HALF):
                place = np.int64(cell & _LOW)
        new = place != skipped
        for k in range(filled):
            if taken[k] == place:
                new = False
                break
        if new:
            taken[filled] = place
            filled += 1
    if filled < wanted:
        _race(weights, size, skipped, taken, filled, state)


@kernel(WORDS, FLOATS, INTS, INTS, INTS, LENGTHS, types.uint64, OUT_LENGTHS)
def draw_nodes(
    cells: Any,
    weights: Any,
    starts: Any,
    levels: Any,
    counts: Any,
    positives: Any,
    seed: int,
    out: Any,
) -> None:
    """Draws for each row different nodes of some levels, none of them the row's own.

    Args:
        cells: an alias table for each level, one behind the other; empty = all weigh the same.
        weights: the weights; empty as ``cells``.
        starts: where each level begins.
        levels: (K,) levels to draw from.
        counts: (K,) nodes of each; as many must have a weight, beside the row's own.
        positives: (B * K,) place within its level of each row's own node.
        seed: of the draws.
        out: (B * sum of counts,) places within the levels, row by row.
    """
    state = np.empty(1, np.uint64)
    state[0] = seed
    position = 0
    for i in range(len(positives)):
        k = i % len(levels)
        first, last = starts[levels[k]], starts[levels[k] + 1]
        few = cells[:0] if len(cells) == 0 else cells[first:last]
        some = weights[:0] if len(weights) == 0 else weights[first:last]
        taken = out[position : position + counts[k]]
        _draw(few, some, last - first, positives[i], taken, state)
        position += counts[k]
