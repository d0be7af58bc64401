"""Joining and thinning retrieved lists."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tzrec.retrieval.exact import Found
from tzrec.retrieval.row_lists import Positions


def merge_interests(found: Found, num_queries: int, k: int) -> Found:
    """Joins the lists of the vectors of each query; an item keeps its best score.

    Args:
        found: (B · I, k'), the vectors of a query one after the other.
        num_queries: B.
        k: how many to keep.
    """
    positions = found.positions.reshape(num_queries, -1)
    scores = found.scores.reshape(num_queries, -1)
    order = np.argsort(-scores, axis=1, kind="stable")
    positions = np.take_along_axis(positions, order, 1)
    scores = np.take_along_axis(scores, order, 1)
    return first_times(Found(positions, scores), k)


def first_times(found: Found, k: int) -> Found:
    """Keeps the first k entries of each row, without repetitions and −1."""
    return keep(found, is_first(found.positions) & (found.positions >= 0), k)


def is_first(positions: Positions) -> NDArray[np.bool_]:
    """Says of each entry of a row whether it is the first of its value."""
    order = np.argsort(positions, axis=1, kind="stable")
    ascending = np.take_along_axis(positions, order, 1)
    new = np.ones(positions.shape, dtype=bool)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, 1)
    return first


def keep(found: Found, kept: NDArray[np.bool_], k: int) -> Found:
    """Keeps some entries of each row, in their order, at most k of them."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    there = np.take_along_axis(kept, order, 1)
    positions = np.take_along_axis(found.positions, order, 1)
    scores = np.take_along_axis(found.scores, order, 1)
    return Found(
        np.where(there, positions, -1), np.where(there, scores, -np.inf).astype(np.float32)
    )
