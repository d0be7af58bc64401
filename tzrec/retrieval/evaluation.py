"""How good retrieved lists are: recall, NDCG, hit rate, MRR, precision and coverage at K.

::

    result = evaluate_ranking(users, items, RowLists.of(test), seen=RowLists.of(train))
    result.metrics["recall@20"]

Ranking is full: every item competes, none is sampled. `evaluate_candidates` is for protocols
that rank a few candidates only; the two give different numbers that must not be compared
(Krichene and Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tzrec.errors import ConfigError, DataError
from tzrec.retrieval.exact import INNER_PRODUCT, Vectors, check_finite, exact_top_k
from tzrec.retrieval.row_lists import Positions, RowLists

DEFAULT_KS = (10, 20, 50)
_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class RankingResult:
    """Metrics of retrieved lists.

    Attributes:
        num_queries: queries that have a relevant item; the means are over them.
        num_skipped: queries without one.
        num_items: items that compete.
        metrics: ``recall@10`` → value, …; by metric, then by K.
    """

    num_queries: int
    num_skipped: int
    num_items: int
    metrics: dict[str, float]

    def table(self) -> str:
        """Returns the metrics as aligned lines, one a metric, one column a K."""
        names = list(dict.fromkeys(name.partition("@")[0] for name in self.metrics))
        ks = list(dict.fromkeys(name.partition("@")[2] for name in self.metrics))
        lines = [f"{'':<10}" + "".join(f"{'@' + k:>10}" for k in ks)]
        for name in names:
            values = "".join(f"{self.metrics[f'{name}@{k}']:>10.5f}" for k in ks)
            lines.append(f"{name:<10}{values}")
        return "\n".join(lines)


class RankingMetrics:
    """Adds up the metrics of retrieved lists, part by part.

    With T relevant items of a query and h(i) = 1 where the item of rank i is one of them:

    * recall@K = Σ_{i≤K} h(i) / T; precision@K = Σ_{i≤K} h(i) / K; hitrate@K = 1 if any h(i) = 1;
    * ndcg@K = Σ_{i≤K} h(i)/log2(i+1) / Σ_{i≤min(T,K)} 1/log2(i+1);
    * mrr@K = 1 / rank of the first hit, 0 without one in K;
    * coverage@K = items that are in at least one list / all items.

    All but the last are means over the queries with T > 0.

    Args:
        num_items: items that compete.
        ks: list lengths.

    Raises:
        ConfigError: a K is not at least 1.
    """

    def __init__(self, num_items: int, ks: Sequence[int] = DEFAULT_KS) -> None:
        self.ks = tuple(dict.fromkeys(int(k) for k in ks))
        if not self.ks or min(self.ks) < 1:
            raise ConfigError(f"K of the metrics: {list(ks)}, must be numbers of at least 1")
        self.num_items = num_items
        self._sums = dict.fromkeys(self._names(), 0.0)
        self._listed = {k: np.zeros(num_items, dtype=bool) for k in self.ks}
        self._queries = self._skipped = 0
        gains = 1 / np.log2(np.arange(2, max(self.ks) + 2))
        self._gains, self._ideal = gains, np.concatenate([[0.0], np.cumsum(gains)])

    def _names(self) -> list[str]:
        kinds = ("recall", "ndcg", "hitrate", "mrr", "precision")
        return [f"{kind}@{k}" for kind in kinds for k in self.ks]

    def update(
        self, found: Positions, relevant: RowLists, num_relevant: Positions | None = None
    ) -> None:
        """Adds queries.

        Args:
            found: (B, K) retrieved items, best first, −1 = none.
            relevant: the right items of each query.
            num_relevant: (B,) how many there are, where some are no items of the index.
        """
        totals = relevant.lengths if num_relevant is None else np.asarray(num_relevant)
        width = max(self.ks)
        found = found[:, :width]
        missing = width - found.shape[1]
        if missing > 0:
            found = np.pad(found, ((0, 0), (0, missing)), constant_values=-1)
        hits = relevant.contains(found)
        for k in self.ks:
            listed = found[:, :k]
            self._listed[k][listed[listed >= 0]] = True
        asked = totals > 0
        self._queries += int(asked.sum())
        self._skipped += int((~asked).sum())
        self._add(hits[asked], totals[asked])

    def _add(self, hits: NDArray[np.bool_], totals: Positions) -> None:
        first = np.where(hits.any(1), hits.argmax(1), hits.shape[1])
        gained = hits * self._gains
        for k in self.ks:
            count = hits[:, :k].sum(1)
            ideal = self._ideal[np.minimum(totals, k)]
            self._sums[f"recall@{k}"] += float((count / totals).sum())
            self._sums[f"precision@{k}"] += float(count.sum()) / k
            self._sums[f"hitrate@{k}"] += float((count > 0).sum())
            self._sums[f"ndcg@{k}"] += float((gained[:, :k].sum(1) / ideal).sum())
            self._sums[f"mrr@{k}"] += float((1 / (first[first < k] + 1)).sum())

    def result(self) -> RankingResult:
        """Returns the metrics of all queries.

        Raises:
            DataError: no query has a relevant item.
        """
        if not self._queries:
            raise DataError(f"none of the {self._skipped} queries has a relevant item")
        metrics = {name: value / self._queries for name, value in self._sums.items()}
        metrics |= {f"coverage@{k}": float(self._listed[k].mean()) for k in self.ks}
        return RankingResult(self._queries, self._skipped, self.num_items, metrics)


def evaluate_ranking(
    queries: Vectors,
    items: Vectors,
    relevant: RowLists,
    *,
    seen: RowLists | None = None,
    ks: Sequence[int] = DEFAULT_KS,
    metric: str = INNER_PRODUCT,
) -> RankingResult:
    """Ranks all items for each query and measures the lists.

    Items that a query has seen are not ranked for it. A query without relevant items is not
    counted (its list counts for coverage).

    Args:
        queries: (B, D), or (B, I, D) for I interests.
        items: (N, D).
        relevant: the right items of each query.
        seen: items to leave out.
        ks: list lengths.
        metric: ``ip`` or ``l2``.

    Raises:
        ConfigError: a K is not at least 1.
        DataError: numbers of rows differ, nothing is relevant, or a vector is not finite.
    """
    check_finite(queries, "queries")
    check_finite(items, "items")
    for what, lists in (("relevant", relevant), ("seen", seen)):
        if lists is not None and len(lists) != len(queries):
            raise DataError(f"{len(queries)} queries, but {what} has {len(lists)} lists")
    total = RankingMetrics(len(items), ks)
    for start in range(0, len(queries), _ROWS):
        stop = min(start + _ROWS, len(queries))
        found = exact_top_k(
            queries[start:stop],
            items,
            max(total.ks),
            metric=metric,
            exclude=seen.slice(start, stop) if seen is not None else None,
        )
        total.update(found.positions, relevant.slice(start, stop))
    return total.result()


def evaluate_candidates(scores: Vectors, *, ks: Sequence[int] = DEFAULT_KS) -> RankingResult:
    """Measures rankings of a few candidates, the first of which is the right one.

    Its rank is one more than the number of candidates with the same or a higher score: ties
    count against the model.

    Args:
        scores: (B, C); column 0 is the right item. −inf stands for no candidate.
        ks: list lengths.

    Raises:
        DataError: a score is not a number.
    """
    scores = np.asarray(scores)
    if np.isnan(scores).any():
        row = int(np.isnan(scores).any(1).argmax())
        raise DataError(f"a score is not a number, first in row {row}")
    ranks = (scores[:, 1:] >= scores[:, :1]).sum(1)
    total = RankingMetrics(scores.shape[1], ks)
    width = min(max(total.ks), scores.shape[1])
    # Only where the right item (0) is matters; the others are as good as none.
    found = np.where(np.arange(width) == ranks[:, None], 0, -1)
    rows = np.arange(len(scores))
    total.update(found, RowLists.from_pairs(rows, np.zeros_like(rows), len(rows)))
    result = total.result()
    kept = {name: v for name, v in result.metrics.items() if not name.startswith("coverage")}
    return dataclasses.replace(result, metrics=kept)
