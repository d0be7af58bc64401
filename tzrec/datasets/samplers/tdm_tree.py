"""`TreeNodes`: the nodes of an item tree level by level, and their edges, in shared memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.datasets.samplers.attributes import Attributes
from tzrec.datasets.samplers.edges import Adjacency, build_edges
from tzrec.datasets.samplers.items import ItemTable, build_items
from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.datasets.samplers.tables import Table
from tzrec.errors import DataError

TREE_LEVEL = "tree_level"


def tree_attributes(
    names: Sequence[str], item_id_field: str, fields: Mapping[str, pa.DataType], delimiter: str
) -> Attributes:
    """Returns the attributes of a node table: level, item id, then the other ``names``."""
    first = [TREE_LEVEL, item_id_field]
    others = [name for name in names if name not in first]
    return Attributes([*first, *others], {**fields, TREE_LEVEL: pa.int64()}, delimiter)


def build_nodes(
    arrays: SharedArrays, table: Table, attributes: Attributes, *, string_ids: bool
) -> None:
    """Reads the nodes into shared arrays, for `TreeNodes`.

    Raises:
        DataError: a row cannot be read; there is not one root; a level is missing or has nodes of
            no weight only.
    """
    build_items(arrays, table, attributes, string_ids=string_ids)
    nodes = ItemTable(arrays, attributes.types)
    column = nodes.column(TREE_LEVEL)
    if column.null_count:
        place = pc.index(column.is_null(), True).as_py()
        raise DataError(f"{table.place(place)}: the first attribute, the level, is empty")
    levels = column.to_numpy(zero_copy_only=False).astype(np.int64)
    counts = np.bincount(np.maximum(levels, -1) + 1)[1:]
    if not len(counts) or counts[0] != 1:
        found = counts[0] if len(counts) else 0
        raise DataError(
            f"the node table has {found} nodes of level 0; it should have one, the root",
            hint="the first attribute of a node is its level",
        )
    if (counts == 0).any():
        gap = int(np.argmin(counts > 0))
        raise DataError(
            f"the node table has no node of level {gap}, but some of level {len(counts) - 1}"
        )
    order = np.argsort(levels, kind="stable")[np.count_nonzero(levels < 0) :]
    starts = np.concatenate([[0], np.cumsum(counts)])
    arrays.put("tree.order", order.astype(np.int32))
    arrays.put("tree.starts", starts)
    arrays.put("tree.levels", levels.astype(np.int32))
    numbers = arrays.allocate("tree.numbers", len(levels), np.int32)
    numbers[:] = -1
    numbers[order] = np.arange(len(order)) - np.repeat(starts[:-1], counts)


class TreeNodes:
    """The nodes that `build_nodes` has shared; a place is that of the node table.

    Attributes:
        items: ids and attributes by place.
        order: (M,) places, level by level.
        starts: (L + 1,) where each level begins in ``order``, and M.
        levels: level by place; -1 for what is above the root.
        numbers: number of each place on its level; -1 for what is above the root.
    """

    def __init__(self, arrays: SharedArrays, attributes: Attributes) -> None:
        self.items = ItemTable(arrays, attributes.types)
        self.order: NDArray[np.int32] = arrays["tree.order"]
        self.starts: NDArray[np.int64] = arrays["tree.starts"]
        self.levels: NDArray[np.int32] = arrays["tree.levels"]
        self.numbers: NDArray[np.int32] = arrays["tree.numbers"]

    @property
    def num_levels(self) -> int:
        """L, the root's included."""
        return len(self.starts) - 1

    def sizes(self) -> list[int]:
        """Returns the nodes of each level."""
        return [int(size) for size in np.diff(self.starts)]

    def on_level(self, level: int) -> NDArray[np.int32]:
        """Returns the places of the nodes of a level."""
        found: NDArray[np.int32] = self.order[self.starts[level] : self.starts[level + 1]]
        return found


def read_edges(
    arrays: SharedArrays, table: Table, what: str, *, string_ids: bool
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns the places of both ends of edges between nodes that `build_nodes` has shared.

    Raises:
        DataError: a row cannot be read, or no end is a node.
    """
    # The lists are made of this table only; what they need of the nodes is not much.
    scratch = SharedArrays()
    for name in ("items.keys", "items.slots"):
        scratch.put(name, arrays[name])
    build_edges(scratch, what, table, string_ids=string_ids)
    edges = Adjacency(scratch, what)
    keys = arrays["items.keys"]
    lists = edges.find(keys)
    known = np.flatnonzero(lists >= 0)
    begins, ends = edges.starts[lists[known]], edges.stops[lists[known]]
    lengths = ends - begins
    places = np.repeat(begins - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    places += np.arange(int(lengths.sum()))
    return np.repeat(known, lengths).astype(np.int32), edges.places[places]


def ancestors_of_leaves(
    nodes: TreeNodes, leaves: NDArray[np.int32], above: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Returns the ancestor of each leaf on the levels 1 … L - 2: (leaves, L - 2) places.

    Args:
        nodes: the nodes; leaves are in the order of their last level.
        leaves: lower ends of the edges.
        above: upper ends, in any order.

    Raises:
        DataError: a leaf has not exactly one ancestor on each of the levels.
    """
    height, first = nodes.num_levels - 2, int(nodes.starts[-2])
    num_leaves = nodes.sizes()[-1]
    levels, rows = nodes.levels[above], nodes.numbers[leaves]
    wrong = (nodes.levels[leaves] != height + 1) | (levels < 1) | (levels > height)
    if wrong.any():
        ends = [_id_of(nodes, part[int(np.argmax(wrong))]) for part in (leaves, above)]
        raise DataError(
            f"an edge leads from node {ends[0]} to node {ends[1]}; edges should lead from a leaf "
            f"to nodes of the levels 1 to {height}"
        )
    found = np.full((num_leaves, max(height, 0)), -1, np.int32)
    found[rows, levels - 1] = above
    if len(leaves) != found.size or (found < 0).any():
        counts = np.bincount(rows, minlength=num_leaves)
        gap = (found < 0).any(axis=1) | (counts != height)
        leaf = _id_of(nodes, nodes.order[first + int(np.argmax(gap))])
        raise DataError(
            f"leaf {leaf} has {counts[int(np.argmax(gap))]} edges, it should have one to a node of "
            f"each of the levels 1 to {height}",
            hint="make node and edge tables together, with tzrec.tools.tdm",
        )
    return found


def children_of_nodes(
    nodes: TreeNodes, parents: NDArray[np.int32], children: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Returns where the children of each place begin (M + 1,), and all children.

    Args:
        nodes: the nodes.
        parents: upper ends of the edges, ascending.
        children: lower ends.

    Raises:
        DataError: an edge does not lead to the next level, or a node has no or two parents.
    """
    wrong = nodes.levels[children] != nodes.levels[parents] + 1
    if wrong.any():
        ends = [int(part[int(np.argmax(wrong))]) for part in (parents, children)]
        raise DataError(
            f"an edge leads from node {_id_of(nodes, ends[0])} of level {nodes.levels[ends[0]]} to "
            f"node {_id_of(nodes, ends[1])} of level {nodes.levels[ends[1]]}, not to the next one"
        )
    counts = np.bincount(children, minlength=len(nodes.levels))
    wrong = (nodes.levels > 0) & (counts != 1)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise DataError(
            f"node {_id_of(nodes, place)} has {counts[place]} parents, it should have 1"
        )
    degrees = np.bincount(parents, minlength=len(nodes.levels))
    return np.concatenate([[0], np.cumsum(degrees)]), children


def _id_of(nodes: TreeNodes, place: int | np.int32) -> object:
    """Returns what names a node: its id where the table's attributes have it."""
    row = nodes.items.take(np.array([place], np.int32))
    others = [value[0].as_py() for name, value in row.items() if name != TREE_LEVEL]
    return others[0] if others else f"in row {place} of the node table"
