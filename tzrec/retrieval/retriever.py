"""`Retriever`: from the columns of a user to the ids of items, in one call."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tzrec.deploy.columns import lists_of
from tzrec.deploy.parts import USER
from tzrec.deploy.predictor import Predictor
from tzrec.errors import DataError, ServingError
from tzrec.retrieval.exact import Found, Vectors
from tzrec.retrieval.ids import ItemIds
from tzrec.retrieval.index import Index
from tzrec.retrieval.row_lists import RowLists


@dataclasses.dataclass(frozen=True)
class Retrieved:
    """Items for each row, best first; fewer than asked for where there are no more.

    Attributes:
        found: positions in the index and scores, (B, k).
        item_ids: ids by position.
    """

    found: Found
    item_ids: ItemIds

    def __len__(self) -> int:
        return len(self.found.positions)

    @property
    def ids(self) -> list[list[Any]]:
        """Item ids, one list a row."""
        lists: list[list[Any]] = self.columns()[0].to_pylist()
        return lists

    @property
    def scores(self) -> list[list[float]]:
        """Scores beside `ids`: higher is better."""
        lists: list[list[float]] = self.columns()[1].to_pylist()
        return lists

    def columns(self) -> tuple[pa.Array, pa.Array]:
        """Returns ids and scores as Arrow lists, one a row."""
        there = self.found.positions >= 0
        lengths = there.sum(1)
        ids = self.item_ids.take(self.found.positions[there])
        return lists_of(ids, lengths), lists_of(pa.array(self.found.scores[there]), lengths)


class Retriever:
    """A user tower with the index of the items; threads may share one.

    ::

        retriever = Retriever.load("retriever/")
        retriever.retrieve({"user_id": [7], "age": [31]}, k=100).ids[0]

    Make a directory with ``tzrec index EXPORT --items ITEMS --out retriever``, and load it with
    `load`.

    Attributes:
        index: the items.
        user_tower: makes vectors of users, None in a directory without one: then only
            `retrieve_vectors` works.
    """

    def __init__(self, index: Index, user_tower: Predictor | None = None) -> None:
        self.index = index
        self.user_tower = user_tower

    @classmethod
    def load(cls, path: str | Path, *, self_check: bool = True) -> Retriever:
        """Loads a directory that ``tzrec index`` made.

        Args:
            path: directory.
            self_check: score the user tower's golden batch, see `Predictor.load`.

        Raises:
            ServingError: the directory is not whole, or the tower does not score here as where
                it was exported.
            MissingDependencyError: the index needs FAISS, which is not installed.
        """
        directory = Path(path).expanduser().absolute()
        index = Index.load(directory)
        tower = None
        if (directory / USER).is_dir():
            tower = Predictor.load(directory / USER, self_check=self_check)
        return cls(index, tower)

    @property
    def input_columns(self) -> list[str]:
        """Raw columns that `retrieve` reads."""
        return self._tower().input_columns

    def retrieve(
        self, rows: Any, k: int = 100, *, exclude: Any = None, is_exact: bool = False
    ) -> Retrieved:
        """Returns the best items for users.

        Args:
            rows: columns of the users, as `Predictor.predict` takes them.
            k: how many items a user.
            exclude: ids that a user must not get (seen items), one list or text of separated
                ids a row; ids that are not in the index do no harm.
            is_exact: compare with every item, whatever the type of the index.

        Raises:
            DataError: a column is missing or wrong, or ``exclude`` has another number of rows.
            FeatureError: a value cannot become its feature.
            ConfigError: k is not at least 1.
        """
        return self.retrieve_vectors(self.embed(rows), k, exclude=exclude, is_exact=is_exact)

    def embed(self, rows: Any) -> Vectors:
        """Returns the vectors of users: (B, D), or (B, I, D) with several interests."""
        tower = self._tower()
        return np.asarray(tower.predict(rows)[tower.output_names[0]], dtype=np.float32)

    def retrieve_vectors(
        self, vectors: Vectors, k: int = 100, *, exclude: Any = None, is_exact: bool = False
    ) -> Retrieved:
        """Returns the best items for vectors of users; arguments as of `retrieve`."""
        seen = self._positions(exclude, len(vectors))
        found = self.index.search(vectors, k, exclude=seen, is_exact=is_exact)
        return Retrieved(found, self.index.ids)

    def _positions(self, exclude: Any, num_rows: int) -> RowLists | None:
        if exclude is None or isinstance(exclude, RowLists):
            lists = exclude
        else:
            lists = self.index.ids.row_lists(_column(exclude))
        if lists is not None and len(lists) != num_rows:
            raise DataError(f"exclude has {len(lists)} rows, there are {num_rows} users")
        return lists

    def _tower(self) -> Predictor:
        if self.user_tower is None:
            raise ServingError(
                "this index has no user tower: it can be asked with vectors only",
                hint="tzrec index EXPORT --items ITEMS --out DIR makes one that has",
            )
        return self.user_tower


def _column(rows: Any) -> pa.Array:
    """Returns one list or text of ids a row as a column."""
    if isinstance(rows, pa.Array | pa.ChunkedArray):
        return rows
    plain = [one if one is None or isinstance(one, str) else _listed(one) for one in rows]
    try:
        return pa.array(plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"exclude is not one list, or text, of ids a row: {error}") from error


def _listed(ids: Any) -> list[Any]:
    try:
        return list(ids)
    except TypeError as error:
        raise DataError(f"exclude has {ids!r} for a row: not a list, or text, of ids") from error
