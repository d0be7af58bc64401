"""`Adjacency`: the items of each user in a table of edges, in shared memory."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from tzrec.datasets.samplers.ids import IdTable, SharedIds
from tzrec.datasets.samplers.items import node_ids, progress_of
from tzrec.datasets.samplers.memory import SharedArrays
from tzrec.datasets.samplers.tables import ITEM, USER, Table
from tzrec.errors import DataError

logger = logging.getLogger("tzrec")


def build_edges(
    arrays: SharedArrays, name: str, table: Table, *, string_ids: bool, ranked: bool = False
) -> None:
    """Reads edges into shared arrays, for `Adjacency`; the items must be there.

    Edges to items that the item table does not have are left out. An edge counts once, however
    often it is there.

    Args:
        arrays: have the items; get the edges.
        name: of the edges.
        table: has users and items.
        string_ids: ids are text.
        ranked: items are counted among those that have an edge, in the order of the item table.

    Raises:
        DataError: a row cannot be read, or no edge leads to an item of the table.
    """
    items = SharedIds(arrays, "items")
    users = IdTable()
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    num_rows, lost, first_lost = 0, 0, ""
    with progress_of(f"reading {name} edges", table) as progress:
        for piece in table.pieces():
            to = items.find(node_ids(piece, ITEM, table, string_ids=string_ids))
            user_ids = node_ids(piece, USER, table, string_ids=string_ids)
            num_rows += len(to)
            known = to >= 0
            if not known.all():
                first_lost = first_lost or table.place(piece.row + int(np.argmin(known)))
                lost += int(len(to) - known.sum())
                to, user_ids = to[known], user_ids[known]
            parts.append((users.add(user_ids), to))
            progress.show()
    if lost:
        logger.warning(
            "%s of %s %s edges lead to items that the item table does not have and are left out, "
            "the first is %s",
            f"{lost:,}",
            f"{num_rows:,}",
            name,
            first_lost,
        )
    if lost == num_rows:
        raise DataError(
            f"none of the {num_rows:,} edges leads to an item of the item table",
            hint="the first column of an edge is the user, the second the item",
        )
    if ranked:
        _rank(arrays, name, parts, len(items))
    users.share(arrays, f"{name}.users")
    _share_lists(arrays, name, parts, len(users))


def _rank(
    arrays: SharedArrays,
    name: str,
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32]]],
    num_items: int,
) -> None:
    reached = np.zeros(num_items, dtype=bool)
    for _, items in parts:
        reached[items] = True
    ranks = arrays.allocate(f"{name}.ranks", num_items, np.int32)
    np.cumsum(reached, out=ranks)
    ranks -= 1
    for _, items in parts:
        items[:] = ranks[items]
    ranks[~reached] = -1
    arrays.put(f"{name}.items", np.flatnonzero(reached).astype(np.int32))


def _share_lists(
    arrays: SharedArrays,
    name: str,
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32]]],
    num_users: int,
) -> None:
    from tzrec.datasets.samplers.kernels import count_edges, scatter_edges, sort_lists

    starts = arrays.allocate(f"{name}.starts", num_users, np.int64)
    stops = arrays.allocate(f"{name}.stops", num_users, np.int64)
    for users, _ in parts:
        count_edges(users, stops)
    np.cumsum(stops[:-1], out=starts[1:])
    stops[:] = starts
    places = arrays.allocate(f"{name}.places", sum(len(users) for users, _ in parts), np.int32)
    while parts:
        scatter_edges(*parts.pop(0), stops, places)
    sort_lists(starts, stops, places)


class Adjacency:
    """The edges that `build_edges` has shared.

    Attributes:
        starts: (U,) where each user's list begins.
        stops: (U,) where it ends.
        places: the lists, sorted: places in the item table, or ranks.
        ranks: rank of each item, -1 for items without an edge; None where lists hold places.
        items: place of each rank.
    """

    def __init__(self, arrays: SharedArrays, name: str) -> None:
        self._users = SharedIds(arrays, f"{name}.users")
        self.starts: NDArray[np.int64] = arrays[f"{name}.starts"]
        self.stops: NDArray[np.int64] = arrays[f"{name}.stops"]
        self.places: NDArray[np.int32] = arrays[f"{name}.places"]
        ranked = f"{name}.ranks" in arrays
        self.ranks: NDArray[np.int32] | None = arrays[f"{name}.ranks"] if ranked else None
        self.items: NDArray[np.int32] | None = arrays[f"{name}.items"] if ranked else None

    def find(self, user_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Returns each user's number, -1 for users without an edge."""
        return self._users.find(user_ids)
