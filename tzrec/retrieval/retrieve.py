"""Items for every row of a table of users: ``tzrec retrieve``."""

from __future__ import annotations

import logging
import time

from tzrec.datasets.dataset import create_writer
from tzrec.deploy.commands import split_names
from tzrec.errors import ConfigError, DataError
from tzrec.options import from_environment
from tzrec.retrieval.outputs import OutputFiles
from tzrec.retrieval.queries import QueryTable, column_of, user_field_of
from tzrec.retrieval.ranks import together
from tzrec.retrieval.retriever import Retriever
from tzrec.retrieval.seen import SeenFilter, SeenOptions
from tzrec.training.peers import sum_over_ranks

logger = logging.getLogger("tzrec")

ITEM_IDS, SCORES = "item_ids", "scores"


def retrieve_table(
    retriever: Retriever,
    queries: QueryTable,
    output_path: str,
    *,
    k: int = 100,
    seen: SeenOptions | None = None,
    reserved_columns: str | None = None,
    writer_type: str | None = None,
    is_exact: bool = False,
    overwrite: bool = False,
) -> int:
    """Writes the best items of every user: columns ``item_ids``, ``scores``, and kept ones.

    Args:
        retriever: index and user tower.
        queries: users.
        output_path: directory for ``part-{rank}``.
        k: items a user.
        seen: what users must not get.
        reserved_columns: comma list of columns to keep; default the user ids, if the config
            tells them.
        writer_type: ``CsvWriter`` or ``ParquetWriter`` (the default).
        is_exact: compare with every item, whatever the type of the index.
        overwrite: replace ``part-*`` files that are there.

    Returns:
        Rows written.

    Raises:
        TzrecError: the input or an argument is wrong; nothing is written then.
    """
    kept, options = _kept_columns(retriever, seen, reserved_columns), from_environment()
    seen = seen or SeenOptions()
    read = ",".join(filter(None, [queries.path, seen.log]))
    files = OutputFiles(output_path, read, options=options, overwrite=overwrite)
    filters = SeenFilter(retriever, seen)
    if k > (num_items := len(retriever.index)):
        logger.warning("k is %d, the index has %d items: lists are shorter", k, num_items)
    started = time.monotonic()
    num_rows = 0
    wanted = list(dict.fromkeys([*kept, *filters.columns]))
    with together(options), create_writer(output_path, writer_type, rank=options.rank) as writer:
        for vectors, rows in queries.batches(retriever, wanted):
            exclude = filters.of(rows)
            found = retriever.retrieve_vectors(vectors, k, exclude=exclude, is_exact=is_exact)
            ids, scores = found.columns()
            columns = {name: column_of(rows, name, queries.path) for name in kept}
            writer.write(columns | {ITEM_IDS: ids, SCORES: scores})
            num_rows += len(vectors)
        if not sum_over_ranks(num_rows):
            raise DataError(f"{queries.path} has no rows")
    files.remove_left(writer.name if num_rows else None)
    filters.warn_if_useless()
    seconds = max(time.monotonic() - started, 1e-9)
    logger.info(
        "%s rows in %.1f s (%.0f rows/s) to %s", f"{num_rows:,}", seconds, num_rows / seconds,
        output_path,
    )  # fmt: skip
    return num_rows


def _kept_columns(
    retriever: Retriever, seen: SeenOptions | None, reserved_columns: str | None
) -> list[str]:
    kept = split_names(reserved_columns) or _default_kept(retriever, seen)
    both = sorted({ITEM_IDS, SCORES} & set(kept))
    if both:
        raise ConfigError(f"{', '.join(both)} would be written twice: choose other columns to keep")
    return kept


def _default_kept(retriever: Retriever, seen: SeenOptions | None) -> list[str]:
    try:
        return [user_field_of(retriever, seen.user_field if seen else None, "the output")]
    except ConfigError as error:
        raise ConfigError(
            "which columns of the users shall be kept beside their items?",
            hint="name them with --reserved-columns, for example --reserved-columns user_id",
        ) from error
