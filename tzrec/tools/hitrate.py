"""``python -m tzrec.tools.hitrate``: how many right items are among the nearest of a user.

``tzrec hitrate`` measures a retriever exactly, by more metrics, from raw rows of users.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING, Any

from tzrec.errors import ConfigError, DataError
from tzrec.tools.vector_flags import add_reader_type, add_writer_type

if TYPE_CHECKING:
    import pyarrow as pa

    from tzrec.retrieval.hit_rate import HitRateOptions, RowHits

logger = logging.getLogger("tzrec")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the interface."""
    text = {
        "user_gt_input": "table of users: request ids, vectors, right items",
        "item_embedding_input": "table of items: ids and vectors",
        "total_hitrate_output": "directory for the hit rate of all rows",
        "hitrate_details_output": "directory for what was found for each row",
    }
    for name, what in text.items():
        parser.add_argument(f"--{name}", required=True, metavar="PATH", help=what)
    parser.add_argument("--batch_size", type=int, default=1024, metavar="N")
    parser.add_argument("--index_type", default="IVFFlatIP", choices=("IVFFlatIP", "IVFFlatL2"))
    parser.add_argument("--top_k", type=int, default=200, metavar="K", help="items an interest")
    parser.add_argument(
        "--topk_across_interests",
        action="store_true",
        help="the top_k best over all interests, not those of each",
    )
    parser.add_argument("--ivf_nlist", type=int, default=1000, metavar="N")
    parser.add_argument("--ivf_nprobe", type=int, default=800, metavar="N")
    names = {
        "item_id_field": "item_id",
        "item_embedding_field": "item_tower_emb",
        "request_id_field": "request_id",
        "gt_items_field": "gt_items",
        "user_embedding_field": "user_tower_emb",
    }
    for name, default in names.items():
        parser.add_argument(f"--{name}", default=default, metavar="NAME")
    parser.add_argument(
        "--num_interests", type=int, default=1, metavar="K", help="vectors in a user's"
    )
    parser.add_argument(
        "--num_interests_field", metavar="NAME", help="column with how many of them count"
    )
    add_reader_type(parser)
    add_writer_type(parser)


def run(args: argparse.Namespace) -> None:
    """Writes the columns ``id, topk_ids, topk_dists, hitrate, hit_ids`` a row, and the total.

    The total is Σ hits / Σ right items over all rows of all processes. Lists become JSON text
    in CSV.

    Args:
        args: as `add_arguments` describes them.

    Raises:
        ConfigError: an argument is wrong.
        DataError: a table cannot be read.
    """
    from tzrec.options import from_environment
    from tzrec.retrieval.hit_rate import HitRateOptions
    from tzrec.training.distributed.process_group import process_group
    from tzrec.training.peers import sum_over_ranks

    if args.batch_size < 1:
        raise ConfigError(f"--batch_size is {args.batch_size}, must be at least 1")
    search = HitRateOptions(
        metric="l2" if args.index_type.endswith("L2") else "ip",
        top_k=args.top_k,
        across_interests=args.topk_across_interests,
        nlist=args.ivf_nlist,
        nprobe=args.ivf_nprobe,
        num_interests=args.num_interests,
    )
    options = from_environment()
    with process_group(options):
        hits, right = _write_details(args, search, options)
        hits, right = sum_over_ranks(hits), sum_over_ranks(right)
        rate = hits / right if right else 0.0
        if options.rank == 0:
            _write_total(args, rate)
            logger.info("total hitrate: %.6f (%d of %d right items)", rate, hits, right)


def _write_details(
    args: argparse.Namespace, search: HitRateOptions, options: Any
) -> tuple[int, int]:
    """Writes the rows of this rank; returns their hits and right items."""
    from tzrec.datasets.formats import create_writer
    from tzrec.retrieval.hit_rate import item_search
    from tzrec.retrieval.vectors import open_table, read_vectors

    items = read_vectors(
        args.item_embedding_input,
        id_field=args.item_id_field,
        vector_field=args.item_embedding_field,
        reader_type=args.reader_type,
    )
    find = item_search(items.vectors, search)
    columns = [args.request_id_field, args.gt_items_field, args.user_embedding_field]
    if args.num_interests_field:
        columns.append(args.num_interests_field)
    reader = open_table(args.user_gt_input, columns, reader_type=args.reader_type)
    hits = right = 0
    with create_writer(args.hitrate_details_output, args.writer_type, rank=options.rank) as writer:
        for number, rows in enumerate(reader.to_batches(args.batch_size)):
            if number % options.world_size != options.rank:
                continue
            found = _look_up(args, rows, search, find, items.ids, items.vectors.shape[1])
            hits += sum(len(one.hits) for one in found)
            right += sum(one.num_right for one in found)
            writer.write(_details(rows.column(args.request_id_field), found, items.ids.type))
    return hits, right


def _look_up(
    args: argparse.Namespace,
    rows: pa.RecordBatch,
    search: HitRateOptions,
    find: Any,
    item_ids: pa.Array,
    dim: int,
) -> list[RowHits]:
    import numpy as np
    import pyarrow as pa

    from tzrec.retrieval.hit_rate import cut_interests, row_hits
    from tzrec.retrieval.ids import id_lists
    from tzrec.retrieval.vectors import to_vectors

    where = f"{args.user_gt_input}: column {args.user_embedding_field!r}"
    users = cut_interests(to_vectors(rows.column(args.user_embedding_field), where), search, where)
    if users.shape[2] != dim:
        raise DataError(
            f"{where}: a vector has {users.shape[2]} numbers, those of items have {dim}",
            hint="--num_interests says how many vectors stand in one",
        )
    counts = None
    if args.num_interests_field:
        column = rows.column(args.num_interests_field)
        if not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
            raise DataError(
                f"column {args.num_interests_field!r} has type {column.type}, not numbers"
            )
        counts = np.asarray(column.fill_null(0))
    right = id_lists(rows.column(args.gt_items_field))
    return row_hits(find, item_ids, users, right, search, num_interests=counts)


def _details(ids: pa.Array, found: list[RowHits], kind: pa.DataType) -> dict[str, pa.Array]:
    import pyarrow as pa

    return {
        "id": ids,
        "topk_ids": pa.array([one.ids for one in found], pa.list_(kind)),
        "topk_dists": pa.array([one.distances for one in found], pa.list_(pa.float32())),
        "hitrate": pa.array([one.rate for one in found], pa.float32()),
        "hit_ids": pa.array([one.hits for one in found], pa.list_(kind)),
    }


def _write_total(args: argparse.Namespace, rate: float) -> None:
    import pyarrow as pa

    from tzrec.datasets.formats import create_writer

    with create_writer(args.total_hitrate_output, args.writer_type) as writer:
        writer.write({"hitrate": pa.array([rate], pa.float64())})


def main(argv: list[str] | None = None) -> int:
    """Runs the tool.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    # The layer of commands stands above the tools.
    from tzrec.cli.job import tool_command

    return tool_command("tzrec.tools.hitrate", __doc__, add_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
