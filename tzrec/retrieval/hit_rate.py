"""The hit rate of the interface: ids found among the nearest items, per row and in total."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.errors import ConfigError, DataError
from tzrec.retrieval import faiss_index
from tzrec.retrieval.exact import L2, Found, Vectors, exact_top_k
from tzrec.retrieval.merge import merge_interests
from tzrec.retrieval.row_lists import Positions

logger = logging.getLogger("tzrec")

Search = Callable[[Vectors, int], Found]


@dataclasses.dataclass(frozen=True)
class HitRateOptions:
    """How hits are looked for.

    Attributes:
        metric: ``ip`` or ``l2``.
        top_k: items an interest.
        across_interests: the ``top_k`` best over all interests, an item once; else those of each.
        nlist: lists of the inverted file.
        nprobe: lists that a search looks into.
        num_interests: interests that a user vector is cut into.
    """

    metric: str = "ip"
    top_k: int = 200
    across_interests: bool = False
    nlist: int = 1000
    nprobe: int = 800
    num_interests: int = 1

    def __post_init__(self) -> None:
        for name in ("top_k", "nlist", "nprobe", "num_interests"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, must be at least 1")


@dataclasses.dataclass(frozen=True)
class RowHits:
    """What was found for one row.

    Attributes:
        ids: found ids, best first; interest after interest, unless across interests.
        distances: inner products, or squared distances, beside `ids`.
        hits: those of the ids that are right, each once.
        num_right: right ids of the row.
    """

    ids: list[Any]
    distances: list[float]
    hits: list[Any]
    num_right: int

    @property
    def rate(self) -> float:
        """Hits / right ids; 0 without any."""
        return len(self.hits) / self.num_right if self.num_right else 0.0


def item_search(vectors: Vectors, options: HitRateOptions) -> Search:
    """Returns the search in an inverted file of the items, exact where FAISS is missing."""
    if not faiss_index.is_installed():
        logger.warning(
            "FAISS is not installed: every item is compared, nlist and nprobe are unused"
        )
        return lambda queries, k: exact_top_k(queries, vectors, k, metric=options.metric)
    index = faiss_index.build_ivf(vectors, options.nlist, options.metric)
    return lambda queries, k: faiss_index.search(index, faiss_index.IVF, queries, k, options.nprobe)


def cut_interests(vectors: Vectors, options: HitRateOptions, where: str) -> Vectors:
    """Returns user vectors as (B, I, D).

    Args:
        vectors: (B, I · D), or (B, I, D).
        options: how many interests.
        where: what the column is, for messages.

    Raises:
        DataError: the vectors cannot be cut so.
    """
    if vectors.ndim == 3:
        return vectors
    if vectors.shape[1] % options.num_interests:
        raise DataError(
            f"{where}: vectors of {vectors.shape[1]} numbers do not hold "
            f"{options.num_interests} interests"
        )
    return vectors.reshape(len(vectors), options.num_interests, -1)


def row_hits(
    search: Search,
    item_ids: pa.Array,
    users: Vectors,
    right: tuple[Positions, pa.Array],
    options: HitRateOptions,
    *,
    num_interests: Positions | None = None,
) -> list[RowHits]:
    """Looks up users.

    Args:
        search: of `item_search`.
        item_ids: id of each item.
        users: (B, I, D); vectors of zeros find nothing.
        right: offsets and ids of the right items of each row.
        options: how.
        num_interests: (B,) interests of each row that count; default all.

    Raises:
        DataError: items have integer ids, and a right id is no integer.
    """
    B, interests, D = users.shape
    found = search(users.reshape(-1, D), options.top_k)
    counts = users.any(2)
    if num_interests is not None:
        counts &= np.arange(interests) < np.asarray(num_interests)[:, None]
    nowhere = ~counts.reshape(-1)
    found.positions[nowhere], found.scores[nowhere] = -1, -np.inf
    if options.across_interests:
        found = merge_interests(found, B, options.top_k)
    positions, scores = found.positions.reshape(B, -1), found.scores.reshape(B, -1)
    offsets, right_ids = right
    try:
        wanted = right_ids.cast(item_ids.type).to_pylist()
    except pa.ArrowInvalid as error:
        raise DataError(f"items have integer ids; right ones are others: {error}") from error
    sign = -1.0 if options.metric == L2 else 1.0
    rows = []
    for row in range(B):
        there = positions[row] >= 0
        ids = item_ids.take(pa.array(positions[row][there])).to_pylist()
        distinct = set(wanted[offsets[row] : offsets[row + 1]]) - {None}
        hits = [one for one in dict.fromkeys(ids) if one in distinct]
        rows.append(RowHits(ids, (sign * scores[row][there]).tolist(), hits, len(distinct)))
    return rows
