"""An item tree: the nodes above the items, their ids, and attributes made of their leaves'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tzrec.errors import ConfigError, DataError
from tzrec.retrieval.tree_codes import Ints, depth_of, first_code

VIRTUAL_NODE = -1


@dataclass(frozen=True)
class Items:
    """The items of a table.

    Attributes:
        ids: (N,) int64 or string, all different.
        attrs: attribute → (N,) values of any type.
        raw_attrs: attribute → (N,) numbers.
    """

    ids: pa.Array
    attrs: Mapping[str, pa.Array]
    raw_attrs: Mapping[str, pa.Array]

    def take(self, rows: Ints) -> Items:
        """Returns some items."""
        index = pa.array(rows)
        return Items(
            self.ids.take(index),
            {name: column.take(index) for name, column in self.attrs.items()},
            {name: column.take(index) for name, column in self.raw_attrs.items()},
        )

    def check(self) -> None:
        """Checks the ids and the types.

        Raises:
            DataError: no item, an id is missing, stands twice, is negative or no id; a raw
                attribute is no number.
        """
        if not len(self.ids):
            raise DataError("there is no item to build a tree of")
        if self.ids.null_count:
            raise DataError(f"{self.ids.null_count} of {len(self.ids)} items have no id")
        counts = self.ids.value_counts()
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(twice):
            raise DataError(
                f"item {twice[0]['values'].as_py()!r} stands {twice[0]['counts'].as_py()} times in "
                f"the item table, as do {len(twice) - 1} others",
                hint="keep one row per item",
            )
        if pa.types.is_integer(self.ids.type) and pc.min(self.ids).as_py() < 0:
            raise DataError(
                f"item id {pc.min(self.ids).as_py()} is negative",
                hint="-1 is the node above the root; use ids from 0 on",
            )
        for name, column in self.raw_attrs.items():
            if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                raise DataError(
                    f"raw attribute {name!r} has type {column.type}, not numbers",
                    hint="list it in attr_fields: its most frequent value is taken",
                )


@dataclass(frozen=True)
class Tree:
    """All nodes, level by level from the root to the leaves, in a level by code.

    Attributes:
        branching: children of a node, at most.
        codes: (M,) heap codes, ascending.
        level_starts: (L + 1,) where each level begins, and M.
        nodes: ids and attributes of all nodes; the leaves are the items.
    """

    branching: int
    codes: Ints
    level_starts: Ints
    nodes: Items

    @property
    def num_levels(self) -> int:
        """L, the root's included."""
        return len(self.level_starts) - 1

    @property
    def num_leaves(self) -> int:
        """Number of items."""
        return int(self.level_starts[-1] - self.level_starts[-2])

    def levels(self) -> Ints:
        """Returns the level (M,) of each node; the root's is 0."""
        return np.repeat(np.arange(self.num_levels), np.diff(self.level_starts))

    def parents(self) -> Ints:
        """Returns the number (M,) of each node's parent; -1 for the root."""
        found = np.searchsorted(self.codes, (self.codes - 1) // self.branching)
        found[0] = -1
        return found


def build_tree(items: Items, codes: Ints, branching: int) -> Tree:
    """Returns the tree above leaves.

    A node above gets the id ``largest item id + code + 1``, or ``nonleaf#{code}`` with leading
    zeros where ids are strings; of each attribute the value that most of its leaves have (of
    several the smallest), of each raw attribute their mean, rounded where it is an integer.
    Leaves without a value do not count.

    Args:
        items: the items.
        codes: (N,) where their leaves are, as `leaf_codes` gives them.
        branching: children of a node.

    Raises:
        DataError: see `Items.check`, or the ids of the nodes leave the range of 64 bits.
    """
    items.check()
    order = np.argsort(codes)
    items, codes = items.take(order), codes[order]
    depth = depth_of(len(codes), branching)
    levels = [codes]
    for _ in range(depth):
        levels.append(np.unique((levels[-1] - 1) // branching))
    levels.reverse()
    starts = np.cumsum([0, *map(len, levels)])
    inner = np.concatenate([np.empty(0, np.int64), *levels[:-1]])
    # (depth, N): the place of each leaf's ancestor in its level.
    above = _ancestors(codes, levels[:-1], branching)
    nodes = Items(
        pa.concat_arrays([_inner_ids(items.ids, inner, first_code(depth, branching)), items.ids]),
        {name: _with_modes(column, above) for name, column in items.attrs.items()},
        {name: _with_means(column, above) for name, column in items.raw_attrs.items()},
    )
    return Tree(branching, np.concatenate(levels), starts.astype(np.int64), nodes)


def _ancestors(codes: Ints, levels: Sequence[Ints], branching: int) -> list[Ints]:
    found: list[Ints] = []
    for level in reversed(levels):
        codes = (codes - 1) // branching
        found.append(np.searchsorted(level, codes))
    return found[::-1]


def _inner_ids(ids: pa.Array, codes: Ints, num_codes: int) -> pa.Array:
    if not pa.types.is_integer(ids.type):
        width = len(str(max(num_codes - 1, 0)))
        return pa.array([f"nonleaf#{code:0{width}d}" for code in codes.tolist()], ids.type)
    largest = pc.max(ids).as_py()
    if largest + num_codes > np.iinfo(np.int64).max:
        raise DataError(f"item id {largest} leaves no ids for the {len(codes)} nodes above")
    return pa.array(largest + 1 + codes, pa.int64()).cast(ids.type)


def _with_modes(column: pa.Array, above: Sequence[Ints]) -> pa.Array:
    """Returns the values of all nodes: the most frequent of their leaves, then the leaves'."""
    rank, row_of_rank = _ranks(column)
    parts = [_mode_ranks(places[rank >= 0], rank[rank >= 0], places) for places in above]
    modes = np.concatenate([np.empty(0, np.int64), *parts])
    rows = pa.array(row_of_rank[modes], mask=modes < 0)
    return pa.concat_arrays([column.take(rows), column])


def _ranks(column: pa.Array) -> tuple[Ints, Ints]:
    """Returns the rank of each value among the different ones (-1: null), and a row with each."""
    plain = column
    if pa.types.is_nested(column.type):
        plain = pa.array([None if v is None else repr(v) for v in column.to_pylist()], pa.string())
    encoded = plain.dictionary_encode()
    indices = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    rank_of = np.empty(len(encoded.dictionary) + 1, np.int64)
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank_of[order] = np.arange(len(order))
    rank_of[-1] = -1
    ranks = rank_of[indices]
    rows = np.zeros(max(len(order), 1), np.int64)
    rows[ranks[ranks >= 0]] = np.flatnonzero(ranks >= 0)
    return ranks, rows


def _mode_ranks(places: Ints, ranks: Ints, all_places: Ints) -> Ints:
    """Returns the most frequent rank of each node, -1 where no leaf has a value."""
    modes = np.full(int(all_places.max()) + 1, -1, np.int64)
    if len(ranks):
        num_ranks = int(ranks.max()) + 1
        pairs, counts = np.unique(places * num_ranks + ranks, return_counts=True)
        nodes = pairs // num_ranks
        # Sorted by node, then count, then rank from high to low: the last one of a node counts.
        order = np.lexsort((-pairs, counts, nodes))
        modes[nodes[order]] = pairs[order] % num_ranks
    return modes


def _with_means(column: pa.Array, above: Sequence[Ints]) -> pa.Array:
    known = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
    parts: list[NDArray[np.float64]] = []
    for places in above:
        count = np.bincount(places, known)
        with np.errstate(invalid="ignore"):
            parts.append(np.bincount(places, values * known) / count)
    means = np.concatenate([np.empty(0), *parts])
    missing = np.isnan(means)
    if pa.types.is_integer(column.type):
        means = np.rint(np.where(missing, 0, means)).astype(np.int64)
    inner = pa.array(means, mask=missing).cast(column.type, safe=False)
    return pa.concat_arrays([inner, column])


def check_branching(branching: int) -> None:
    """Raises `ConfigError` where a node would have less than two children."""
    if branching < 2:
        raise ConfigError(f"--n_cluster {branching}: a node has at least 2 children")
