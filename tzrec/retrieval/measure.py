"""How right retrieved items are: full ranking of a table of users, ``tzrec hitrate``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tzrec.errors import ConfigError, DataError
from tzrec.retrieval.evaluation import DEFAULT_KS, RankingMetrics, RankingResult
from tzrec.retrieval.exact import Vectors, as_interests
from tzrec.retrieval.ids import id_lists
from tzrec.retrieval.queries import QueryTable, column_of, user_field_of
from tzrec.retrieval.retriever import Retriever
from tzrec.retrieval.row_lists import RowLists
from tzrec.retrieval.seen import SeenFilter, SeenOptions, union

logger = logging.getLogger("tzrec")


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """How retrieval is measured.

    Attributes:
        item_field: column of the right items: an id, a list, or text of separated ids; None = as
            the index was made.
        by_user: rows of one user are one query (the vector of the first) with all their items;
            else each row is a query.
        ks: list lengths.
        is_exact: compare with every item, whatever the type of the index.
    """

    item_field: str | None = None
    by_user: bool = False
    ks: Sequence[int] = DEFAULT_KS
    is_exact: bool = False


def evaluate_table(
    retriever: Retriever,
    queries: QueryTable,
    options: EvaluationOptions | None = None,
    *,
    seen: SeenOptions | None = None,
) -> RankingResult:
    """Measures what users would get against what they took.

    Right items that are not in the index, or that the user must not get, count as missed.

    Args:
        retriever: index and user tower.
        queries: users with their right items.
        options: how.
        seen: what users must not get.

    Raises:
        DataError: the input has no right items.
        ConfigError: it is not clear which columns are meant.
    """
    options, seen = options or EvaluationOptions(), seen or SeenOptions()
    item_field = options.item_field or retriever.index.info.id_field
    if not item_field:
        raise ConfigError("which column holds the right items?", hint="name it with --item-field")
    filters = SeenFilter(retriever, seen)
    num_items = len(retriever.index)
    if max(options.ks) > num_items:
        logger.warning("K is %d, the index has %d items", max(options.ks), num_items)
    user_field = user_field_of(retriever, seen.user_field, "--by-user") if options.by_user else ""
    columns = [item_field, *filters.columns, *filter(None, [user_field])]
    total = _Evaluation(retriever, options)
    pending: list[_Rows] = []
    for vectors, rows in queries.batches(retriever, list(dict.fromkeys(columns))):
        right = column_of(rows, item_field, queries.path)
        users = column_of(rows, user_field, queries.path) if user_field else None
        one = _Rows(as_interests(vectors), *id_lists(right), filters.of(rows), users)
        if options.by_user:
            pending.append(one)
        else:
            total.add(one)
    if pending:
        total.add(_by_user(pending))
    filters.warn_if_useless()
    return total.result()


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Queries with their right items."""

    vectors: Vectors
    offsets: np.ndarray
    right: pa.Array
    seen: RowLists | None
    users: pa.Array | None


class _Evaluation:
    """Adds up metrics, and counts what cannot be found."""

    def __init__(self, retriever: Retriever, options: EvaluationOptions) -> None:
        self._retriever = retriever
        self._exact = options.is_exact
        self._total = RankingMetrics(len(retriever.index), options.ks)
        self._asked = self._unknown = self._hidden = 0

    def add(self, rows: _Rows) -> None:
        num_rows = len(rows.offsets) - 1
        row_of = np.repeat(np.arange(num_rows), np.diff(rows.offsets))
        positions = self._retriever.index.ids.positions(rows.right)
        # Unknown ids are told apart by text, so that one named twice counts once.
        codes = np.asarray(rows.right.dictionary_encode().indices.fill_null(-1), dtype=np.int64)
        distinct = RowLists.from_pairs(row_of, codes, num_rows)
        relevant = RowLists.from_pairs(row_of, positions, num_rows)
        self._asked += len(distinct.values)
        self._unknown += len(distinct.values) - len(relevant.values)
        for start in range(0, num_rows, 4096):
            part = slice(start, min(start + 4096, num_rows))
            seen = rows.seen.slice(part.start, part.stop) if rows.seen is not None else None
            own = relevant.slice(part.start, part.stop)
            if seen is not None:
                self._hidden += len(own.values) + len(seen.values)
                both = union(own, seen)
                self._hidden -= len(both.values) if both is not None else 0
            found = self._retriever.index.search(
                rows.vectors[part], max(self._total.ks), exclude=seen, is_exact=self._exact
            )
            self._total.update(found.positions, own, distinct.lengths[part])

    def result(self) -> RankingResult:
        for count, what in ((self._unknown, "not in the index"), (self._hidden, "seen items")):
            if count:
                logger.warning(
                    "%s of %s right items are %s: they count as missed",
                    f"{count:,}", f"{self._asked:,}", what,
                )  # fmt: skip
        return self._total.result()


def _by_user(parts: list[_Rows]) -> _Rows:
    """Joins the rows of each user."""
    users = pa.concat_arrays([part.users for part in parts]).dictionary_encode()
    codes = np.asarray(users.indices.fill_null(-1), dtype=np.int64)
    if (codes < 0).any():
        raise DataError(f"{int((codes < 0).sum())} rows have no user id")
    _, first = np.unique(codes, return_index=True)
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    user_of = np.repeat(codes, lengths)
    order = np.argsort(user_of, kind="stable")
    right = pa.concat_arrays([part.right for part in parts]).take(pa.array(order))
    offsets = np.zeros(len(first) + 1, np.int64)
    np.cumsum(np.bincount(user_of, minlength=len(first)), out=offsets[1:])
    seen = None
    if parts[0].seen is not None:
        starts = np.cumsum([0, *(len(part.offsets) - 1 for part in parts)])
        lists = [(start, part.seen) for start, part in zip(starts, parts, strict=False)]
        rows = np.concatenate([one.rows + start for start, one in lists if one is not None])
        values = np.concatenate([one.values for _, one in lists if one is not None])
        seen = RowLists.from_pairs(codes[rows], values, len(first))
    vectors = np.concatenate([part.vectors for part in parts])[first]
    return _Rows(vectors, offsets, right, seen, None)
