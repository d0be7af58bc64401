"""What users have seen and must not get: of a log, or of a column of their own rows."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pyarrow as pa

from tzrec.errors import DataError, at
from tzrec.retrieval.ids import ItemIds, id_lists, plain_ids
from tzrec.retrieval.queries import column_of, user_field_of
from tzrec.retrieval.retriever import Retriever
from tzrec.retrieval.row_lists import RowLists
from tzrec.retrieval.vectors import open_table

logger = logging.getLogger("tzrec")


@dataclasses.dataclass(frozen=True)
class SeenOptions:
    """What users must not get.

    Attributes:
        log: table of what users have seen, a row an event; "" = none.
        column: column of the users' own rows with the items that they have seen; "" = none.
        user_field: column of user ids, in both tables; None = as the config's sampler has it.
        item_field: column of items in the log; None = as the index was made.
    """

    log: str = ""
    column: str = ""
    user_field: str | None = None
    item_field: str | None = None


class SeenFilter:
    """Finds out for rows of users what they must not get.

    Args:
        retriever: has the items.
        options: where it stands.

    Attributes:
        columns: columns of the users' rows that `of` reads.

    Raises:
        ConfigError: it is not clear which columns are meant.
    """

    def __init__(self, retriever: Retriever, options: SeenOptions) -> None:
        self._ids = retriever.index.ids
        self._column = options.column
        self.columns = [options.column] if options.column else []
        self._log: SeenItems | None = None
        if options.log:
            self._user = user_field_of(retriever, options.user_field, "--seen")
            item = options.item_field or retriever.index.info.id_field
            self._log = SeenItems(options.log, self._user, item, self._ids)
            self.columns.append(self._user)

    def of(self, rows: pa.RecordBatch) -> RowLists | None:
        """Returns the positions of these items for each row; None = nothing is left out."""
        own: RowLists | None = None
        log: RowLists | None = None
        if self._column:
            with at(f"column {self._column!r}"):
                own = self._ids.row_lists(column_of(rows, self._column, "the input"))
        if self._log is not None:
            log = self._log.of(column_of(rows, self._user, "the input"))
        return union(own, log)

    def warn_if_useless(self) -> None:
        """Warns where the log has left nothing out, after all rows."""
        if self._log is not None:
            self._log.warn_if_useless()


class SeenItems:
    """What users have seen, from a log.

    Args:
        path: table with a row an event.
        user_field: column of user ids.
        item_field: column of items: ids, lists, or text of separated ids.
        items: ids of the index; others are left out.
    """

    def __init__(self, path: str, user_field: str, item_field: str, items: ItemIds) -> None:
        users, rows, positions = [], [], []
        start = 0
        for batch in open_table(path, [user_field, item_field]).to_batches():
            offsets, ids = id_lists(batch.column(item_field))
            users.append(batch.column(user_field))
            rows.append(start + np.repeat(np.arange(batch.num_rows), np.diff(offsets)))
            positions.append(items.positions(ids))
            start += batch.num_rows
        codes = pa.concat_arrays(users).dictionary_encode()
        numbers = np.asarray(codes.indices.fill_null(-1), dtype=np.int64)
        # One more user, who has seen nothing, for those that are not in the log.
        self._unknown = len(codes.dictionary)
        self._lists = RowLists.from_pairs(
            numbers[np.concatenate(rows)], np.concatenate(positions), self._unknown + 1
        )
        self._users = ItemIds(plain_ids(codes.dictionary, f"{path}: column {user_field!r}"))
        self._path, self._columns = path, (user_field, item_field)
        self._asked = self._known = 0

    def of(self, users: pa.Array) -> RowLists:
        """Returns what each user has seen; those who are not in the log nothing."""
        found = self._users.positions(users)
        self._asked += len(found)
        self._known += int((found >= 0).sum())
        return self._lists.take(np.where(found < 0, self._unknown, found))

    def warn_if_useless(self) -> None:
        """Warns where no user, or no item, of the log is known: that is rarely meant."""
        for (what, where), useless in zip(
            (("users of the input", self._columns[0]), ("items of the index", self._columns[1])),
            (self._asked and not self._known, not len(self._lists.values)),
            strict=True,
        ):
            if useless:
                logger.warning(
                    "%s: column %r has none of the %s, so nothing is left out", self._path, where,
                    what,
                )  # fmt: skip


def union(first: RowLists | None, second: RowLists | None) -> RowLists | None:
    """Returns lists that hold what either has."""
    if first is None or second is None:
        return first if second is None else second
    if len(first) != len(second):
        raise DataError(f"lists of {len(first)} and of {len(second)} rows")
    rows = np.concatenate([first.rows, second.rows])
    values = np.concatenate([first.values, second.values])
    return RowLists.from_pairs(rows, values, len(first))
