"""Balanced k-means: items with similar vectors become neighbours in the tree."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from tzrec.errors import DataError
from tzrec.retrieval.tree_codes import Ints, leaf_codes, part_edges

_ITERATIONS = 20
# Items that a thread takes at once; below that starting it costs more than it saves.
_CHUNK = 1 << 14


def cluster_codes(
    vectors: NDArray[np.float32], branching: int, *, seed: int = 0, threads: int = 1
) -> Ints:
    """Returns the code of each item's leaf in a tree whose nodes hold similar items.

    Top down: the items of a node are split among its children by k-means, in which every child
    takes the same number of items (sizes differ by at most one). In each of at most 20 rounds the
    items that lose most by another child choose first; centres start as in k-means++ (Arthur &
    Vassilvitskii, 2007).

    Args:
        vectors: (N, D) of the items.
        branching: n, children of a node.
        seed: of the first centres; the result does not depend on ``threads``.
        threads: nodes of a level that are split at once.

    Raises:
        DataError: a vector has a number that is not finite.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise DataError(f"the vector of item {wrong[0]} (counted from 0) is not finite")
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        splitter = _Splitter(vectors, branching, seed, pool)
        return leaf_codes(len(vectors), branching, splitter)


class _Splitter:
    """Orders the items of all nodes of a level by the child that they go to."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        branching: int,
        seed: int,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._vectors = vectors
        self._branching = branching
        self._seed = seed
        self._pool = pool

    def __call__(self, order: Ints, starts: Ints, stops: Ints) -> None:
        edges = part_edges(starts, stops, self._branching)
        # Nodes are dealt out by number of items, in pieces of whole nodes.
        pieces = np.unique((starts - starts[0]) // _CHUNK, return_index=True)[1]
        bounds = np.append(pieces, len(starts))
        jobs = [
            self._pool.submit(self._split, order, edges[first:last])
            for first, last in itertools.pairwise(bounds)
        ]
        for job in jobs:
            job.result()

    def _split(self, order: Ints, edges: Ints) -> None:
        from tzrec.retrieval.tree_kernels import split_nodes

        split_nodes(self._vectors, order, np.ascontiguousarray(edges), self._seed, _ITERATIONS)
