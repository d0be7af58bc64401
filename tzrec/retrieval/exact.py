"""Exact search: every query against every item, by matrix products of bounded size."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tzrec.errors import DataError
from tzrec.retrieval.row_lists import Positions, RowLists

INNER_PRODUCT, L2 = "ip", "l2"
METRICS = (INNER_PRODUCT, L2)

# Scores that exist at a time: 64 MiB.
_TILE_ROWS, _TILE_ITEMS = 256, 65536

Vectors = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Found:
    """The best items of each query, best first.

    Attributes:
        positions: (B, k) item rows, −1 where a query has fewer.
        scores: (B, k) inner products, or negative squared distances; −inf beside −1.
    """

    positions: Positions
    scores: Vectors


def exact_top_k(
    queries: Vectors,
    items: Vectors,
    k: int,
    *,
    metric: str = INNER_PRODUCT,
    exclude: RowLists | None = None,
) -> Found:
    """Returns the k items with the best scores for each query.

    A query may have several vectors (interests): an item's score is the best of them. A vector
    of zeros is no interest; a query without any finds nothing.

    Args:
        queries: (B, D), or (B, I, D) for I interests.
        items: (N, D).
        k: how many; fewer come where there are fewer items.
        metric: ``ip`` (inner product; cosine for normalised vectors) or ``l2``.
        exclude: items that a query must not find.
    """
    three = as_interests(queries)
    B, D = len(three), three.shape[2]
    k = min(k, len(items))
    positions = np.full((B, k), -1, dtype=np.int64)
    scores = np.full((B, k), -np.inf, dtype=np.float32)
    if k == 0 or B == 0:
        return Found(positions, scores)
    exclude = exclude or RowLists.empty(B)
    rows_at_once = max(_TILE_ROWS // three.shape[1], 1)
    with torch.inference_mode():
        item_tensor = torch.from_numpy(np.ascontiguousarray(items, dtype=np.float32))
        norms = (item_tensor * item_tensor).sum(1) if metric == L2 else None
        for start in range(0, B, rows_at_once):
            stop = min(start + rows_at_once, B)
            part = torch.from_numpy(three[start:stop].reshape(-1, D).copy())
            best, places = _scan(part, item_tensor, norms, exclude.slice(start, stop), k)
            there = torch.isfinite(best)
            positions[start:stop] = torch.where(there, places, -1).numpy()
            scores[start:stop] = best.numpy()
    return Found(positions, scores)


def check_finite(vectors: Vectors, what: str) -> None:
    """Refuses vectors that nothing can be compared with.

    Raises:
        DataError: a number is not finite.
    """
    # A sum is finite only if all numbers are; it needs no copy.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = vectors.reshape(len(vectors), -1).sum(1, dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(sums))
    if len(wrong):
        raise DataError(f"{what}: {len(wrong)} are not finite, the first in row {wrong[0]}")


def as_interests(queries: Vectors) -> Vectors:
    """Returns queries as (B, I, D)."""
    queries = np.asarray(queries, dtype=np.float32)
    return queries[:, None, :] if queries.ndim == 2 else queries


def _scan(
    queries: Tensor, items: Tensor, norms: Tensor | None, exclude: RowLists, k: int
) -> tuple[Tensor, Tensor]:
    """Returns scores and positions (b, k) of the best items, tile by tile."""
    rows = len(exclude)
    nowhere = (queries == 0).all(1).view(rows, -1, 1)
    own = (queries * queries).sum(1, keepdim=True) if norms is not None else None
    seen_rows, seen = torch.from_numpy(exclude.rows), torch.from_numpy(exclude.values)
    best = torch.empty(rows, 0)
    places = torch.empty(rows, 0, dtype=torch.long)
    for start in range(0, len(items), _TILE_ITEMS):
        stop = min(start + _TILE_ITEMS, len(items))
        scores = queries @ items[start:stop].T
        if norms is not None and own is not None:
            scores = (2 * scores).sub_(norms[start:stop]).sub_(own).clamp_max_(0.0)
        scores = scores.view(rows, -1, stop - start)
        if bool(nowhere.any()):
            scores = scores.masked_fill(nowhere, -torch.inf)
        tile = scores.amax(1) if scores.shape[1] > 1 else scores[:, 0]
        inside = (seen >= start) & (seen < stop)
        tile[seen_rows[inside], seen[inside] - start] = -torch.inf
        top, where = tile.topk(min(k, stop - start), dim=1)
        best, places = torch.cat([best, top], 1), torch.cat([places, where + start], 1)
        if start:
            best, order = best.topk(min(k, best.shape[1]), dim=1)
            places = places.gather(1, order)
    return best, places
