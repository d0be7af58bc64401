"""Positions of nodes in a tree: heap codes, where the children of c are n c + 1 … n c + n."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
# (order of the items, starts, stops): orders the items of each segment so that the parts which
# become its children lie one behind the other.
Arrange = Callable[[Ints, Ints, Ints], None]


def as_given(order: Ints, starts: Ints, stops: Ints) -> None:
    """Keeps the order of the items."""
    del order, starts, stops


def depth_of(num_items: int, branching: int) -> int:
    """Returns the level that the leaves of a balanced tree lie on; the root's is 0."""
    depth, room = 0, 1
    while room < num_items:
        depth, room = depth + 1, room * branching
    return depth


def first_code(level: int, branching: int) -> int:
    """Returns the smallest code of a level."""
    return int((branching**level - 1) // (branching - 1))


def leaf_codes(num_items: int, branching: int, arrange: Arrange = as_given) -> Ints:
    """Returns the code of each item's leaf, all on the last level.

    The items are cut into ``branching`` parts of equal size, each of these again, until a part is
    a single item; of the parts of code c the i-th one (from 0) gets the code ``n c + n - i``.
    Items that are alone early move down to the last level, always to the first child.

    Args:
        num_items: number of items, at least 1.
        branching: n, children of a node.
        arrange: orders the items of all parts of a level before these are cut.
    """
    order = np.arange(num_items, dtype=np.int64)
    starts, stops = np.zeros(1, np.int64), np.full(1, num_items, np.int64)
    codes = np.zeros(1, np.int64)
    found = np.zeros(num_items, np.int64)
    while True:
        single = stops - starts == 1
        found[order[starts[single]]] = codes[single]
        starts, stops, codes = starts[~single], stops[~single], codes[~single]
        if not len(starts):
            break
        arrange(order, starts, stops)
        starts, stops, codes = _cut(starts, stops, codes, branching)
    last = first_code(depth_of(num_items, branching), branching)
    while (early := found < last).any():
        found[early] = branching * found[early] + 1
    return found


def part_edges(starts: Ints, stops: Ints, branching: int) -> Ints:
    """Returns where the parts of each segment begin, and where the last ends: (S, n + 1)."""
    sizes = (stops - starts)[:, None]
    return starts[:, None] + sizes * np.arange(branching + 1) // branching


def _cut(starts: Ints, stops: Ints, codes: Ints, branching: int) -> tuple[Ints, Ints, Ints]:
    edges = part_edges(starts, stops, branching)
    children = branching * codes[:, None] + branching - np.arange(branching)
    filled = edges[:, 1:] > edges[:, :-1]
    return edges[:, :-1][filled], edges[:, 1:][filled], children[filled]
