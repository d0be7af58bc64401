"""Tables of users as queries: raw columns through the user tower, or vectors as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import pyarrow as pa

from tzrec.errors import ConfigError
from tzrec.options import from_environment
from tzrec.retrieval.exact import Vectors
from tzrec.retrieval.origin import refuse_other_model, weights_of
from tzrec.retrieval.retriever import Retriever
from tzrec.retrieval.towers import id_field_of, tower_of
from tzrec.retrieval.vectors import check_column, find_vector_field, open_table, to_vectors

_BATCH_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class QueryTable:
    """A table of users.

    Attributes:
        path: comma list of files, globs and directories.
        vector_field: column of vectors; None = what the user tower reads, or without a tower the
            column of vectors that the table has.
        batch_size: rows to take at a time; None = 1024, or as the tower's config says.
    """

    path: str
    vector_field: str | None = None
    batch_size: int | None = None

    def batches(
        self, retriever: Retriever, columns: Sequence[str]
    ) -> Iterator[tuple[Vectors, pa.RecordBatch]]:
        """Yields vectors of users, and the columns asked for, of the rows of this rank.

        Raises:
            DataError: the rows cannot be read.
            ConfigError: vectors in the table are of another model than the index.
        """
        if retriever.user_tower is not None and self.vector_field is None:
            tower = tower_of(retriever.user_tower)
            yield from tower.vectors(self.path, columns, batch_size=self.batch_size)
            return
        field = self.vector_field or find_vector_field(open_table(self.path).schema, self.path)
        reader = open_table(self.path, list(dict.fromkeys([field, *columns])))
        refuse_other_model(retriever.index.info.weights, weights_of(reader), what=self.path)
        options = from_environment()
        for number, rows in enumerate(reader.to_batches(self.batch_size or _BATCH_ROWS)):
            if number % options.world_size == options.rank:
                where = f"{self.path}: column {field!r}"
                yield to_vectors(rows.column(field), where), rows


def user_field_of(retriever: Retriever, given: str | None, what: str) -> str:
    """Returns the column of user ids: the given one, else that of the tower's config.

    Args:
        retriever: may have a user tower.
        given: name that was given.
        what: needs it, for the message.

    Raises:
        ConfigError: neither tells.
    """
    config = retriever.user_tower.config if retriever.user_tower is not None else None
    name = given or (id_field_of(config, "user") if config is not None else None)
    if not name:
        raise ConfigError(f"{what} needs the column of user ids", hint="name it with --user-field")
    return name


def column_of(rows: pa.RecordBatch, name: str, where: str) -> pa.Array:
    """Returns a column.

    Raises:
        DataError: there is none of that name.
    """
    check_column(name, rows.schema.names, where)
    return rows.column(name)
